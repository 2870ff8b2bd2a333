"""Folders of pictures to concepts; everything that is wrong is found before any training and told at once."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from cns_jax.core.types import SUBJECT, Concept
from cns_jax.data.caption_files import read_captions
from cns_jax.data.masks import read_masks
from cns_jax.data.names import guess_class_word, token_of, without_repeats
from cns_jax.data.pictures import left_out, pictures_in, read_pictures, twice
from cns_jax.data.spec import ConceptSpec, check_value, how_to_say, read_file
from cns_jax.data.stray import dangling, own

log = logging.getLogger(__name__)

_LONGEST = 200  # bytes; a file's name may have 255, and more than the concept's stands in it


class DataError(ValueError):
    """What is wrong with the user's folders, one line a problem."""


class NoFolders(DataError):
    """The folder of all concepts is not there, or has no sub-folders."""


def discover(root: Path) -> tuple[ConceptSpec, ...]:
    """One spec for every sub-folder of `root`, by name; what a system put there is skipped, what else lies beside the
    folders is logged. A dangling link counts as a folder, of which `read_concepts` says that it is not there. Raises
    NoFolders if there is none."""
    if not root.is_dir():
        raise NoFolders(f"data_root {root} is not a folder; give a folder with one sub-folder of images a concept")
    inside = own(root)
    folders = [p for p in inside if p.is_dir() or dangling(p)]
    if not folders:
        count = pictures_in(root)
        what = f"holds {count} pictures itself and has no sub-folders" if count else "has no sub-folders"
        example = f", e.g. {root / 'my_cat'}" if count else ""
        raise NoFolders(f"data_root {root} {what}; put each concept's images into a folder of its own{example}")
    left = left_out(p for p in inside if not p.is_dir())
    if left:
        log.warning("%s: left out beside the folders: %s", root, left)
    return tuple(ConceptSpec(p.name) for p in folders)


def merge(
    root: Path | None, specs: Sequence[ConceptSpec], said: Sequence[ConceptSpec], others: Collection[str] = ()
) -> tuple[ConceptSpec, ...]:
    """All that is said of each concept of `specs`, no picture read: what the command line says (`said`, by name) goes
    before `specs`, these before concept.toml in the concept's folder. root: None where there are no such folders.
    others: names besides those of `specs` that `said` may speak of.

    Raises DataError for a name in `said` that neither has. What is wrong in a concept.toml says `read_concepts`.
    """
    over, known = {spec.name: spec for spec in said}, list(dict.fromkeys((*(spec.name for spec in specs), *others)))
    problems = [_unknown(name, known) for name in over if name not in known]
    if problems:
        raise DataError("\n".join(problems))
    merged = [over[spec.name].over(spec) if spec.name in over else spec for spec in specs]
    return tuple(
        merged if root is None else (spec.over(read_file(_folder(root, spec), spec.name, [])) for spec in merged)
    )


def read_concepts(root: Path, specs: Sequence[ConceptSpec], *, quiet: bool = False) -> tuple[Concept, ...]:
    """The concepts of `specs`, every picture opened once; what a spec leaves empty is what concept.toml says in the
    concept's folder, else what the name says.

    What is left out, and tokens that are not simply the name, are logged unless `quiet`. Raises DataError listing all
    that is wrong.
    """
    problems: list[str] = []
    notes: list[str] = []
    concepts = [_concept(root, spec, problems, notes) for spec in specs]
    owners: dict[str, str] = {}
    for concept in concepts:
        if concept.token in owners:
            problems.append(
                f"{owners[concept.token]!r} and {concept.name!r} share the token {concept.token}; give each its own: "
                + how_to_say(concept.name, "token", f"{concept.token[:-1]}{len(owners) + 1}>")
            )
        owners[concept.token] = concept.name
    if problems:
        raise DataError("\n".join(problems))
    for note in [] if quiet else [*_repeats(specs), *notes, *twice([p for c in concepts for p in c.image_paths])]:
        log.warning("%s", note)
    return tuple(concepts)


def _concept(root: Path, spec: ConceptSpec, problems: list[str], notes: list[str]) -> Concept:
    name, folder = spec.name, _folder(root, spec)
    unfit = _unfit(name)
    if unfit:
        problems.append(unfit)
        return Concept(name, f"<{name}>", "", SUBJECT, (), ())
    spec = spec.over(read_file(folder, name, problems))
    for key in ("token", "kind"):
        why = check_value(key, getattr(spec, key))
        if why:
            problems.append(f"{name}: {key} {getattr(spec, key)!r} {why}")
    token = spec.token or token_of(name)
    if token is None:
        problems.append(f"{name}: its name gives no token; {how_to_say(name, 'token', '<concept1>')}")
    elif not spec.token and token != f"<{name}>":
        notes.append(f"{name}: its token is {token}")
    paths = read_pictures(folder, problems, notes)
    captions = read_captions(folder, paths, problems)
    masks = read_masks(folder, paths, problems)
    word = spec.class_word or guess_class_word(name)
    init = spec.init_word or None
    return Concept(name, token or f"<{name}>", word, spec.kind or SUBJECT, paths, captions, init, spec.steps, masks)


def _unfit(name: str) -> str | None:
    """Why a name cannot be a concept's, after which a run's files are called."""
    if not name.isprintable():  # half letters, too, as names of other encodings have them
        return f"{name!r}: a folder's name must be letters that can be printed; rename the folder"
    if len(name.encode()) > _LONGEST:
        return f"{name}: a folder's name may have {_LONGEST} bytes, since files are called after it; rename the folder"
    return None


def _folder(root: Path, spec: ConceptSpec) -> Path:
    return root / (spec.folder or spec.name)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known[:8])}"
    return f'--concept="{name}: ...": there is no concept {name!r}; {hint}'


def _repeats(specs: Sequence[ConceptSpec]) -> list[str]:
    """What to say of numbers that kohya's trainers read."""
    numbered = [s.name for s in specs if not s.token and without_repeats(s.name) != s.name]
    if not numbered:
        return []
    return [f"the numbers before {', '.join(numbered)} are kohya's repeats; they are ignored, steps decide"]
