"""Folders of pictures to concepts; everything that is wrong is found before any training and told at once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cns_jax.core.types import KINDS, Concept
from cns_jax.data.images import SUFFIXES, ImageError, open_image
from cns_jax.data.masks import is_mask, read_masks
from cns_jax.text.vocabulary import CONCEPT_TOKEN, Vocabulary

_MAX_PIECES = 3


class DataError(ValueError):
    """What is wrong with the user's folders, one line a problem."""


@dataclass(frozen=True)
class ConceptSpec:
    """What the user says of a concept. Empty strings are filled from the name: folder, token "<name>", class
    word = the name's last word without digits. steps: of its lesson, 0 for the run's own."""

    name: str
    folder: str = ""
    token: str = ""
    class_word: str = ""
    kind: str = "subject"
    init_word: str = ""
    steps: int = 0


def guess_class_word(name: str) -> str:
    """The last word of a folder's name, without digits: "colorful_sneaker" -> "sneaker", "dog2" -> "dog"."""
    words = [w for w in re.split(r"[\W_]+", re.sub(r"\d+", " ", name.lower())) if w]
    return words[-1] if words else name


def discover(root: Path) -> tuple[ConceptSpec, ...]:
    """One spec for every sub-folder of `root`, by name. Raises DataError if there is none."""
    if not root.is_dir():
        raise DataError(f"data_root {root} is not a folder; give a folder with one sub-folder of images a concept")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"data_root {root} has no sub-folders; put each concept's images into a folder of its own")
    return tuple(ConceptSpec(p.name) for p in folders)


def read_concepts(root: Path, specs: Sequence[ConceptSpec]) -> tuple[Concept, ...]:
    """The concepts of `specs`, every picture opened once. Raises DataError listing all that is wrong."""
    problems: list[str] = []
    concepts = [_concept(root, spec, problems) for spec in specs]
    owners: dict[str, str] = {}
    for concept in concepts:
        if concept.token in owners:
            problems.append(
                f"{owners[concept.token]!r} and {concept.name!r} share the token {concept.token}; give each its own"
            )
        owners[concept.token] = concept.name
    if problems:
        raise DataError("\n".join(problems))
    return tuple(concepts)


def _concept(root: Path, spec: ConceptSpec, problems: list[str]) -> Concept:
    folder = root / (spec.folder or spec.name)
    token = spec.token or "<" + re.sub(r"[^a-z0-9_-]+", "_", spec.name.lower()) + ">"
    if not CONCEPT_TOKEN.fullmatch(token):
        problems.append(f"{spec.name}: token {token!r} must look like <cat1> (a-z, 0-9, _ and - between < and >)")
    if spec.kind not in KINDS:
        problems.append(f"{spec.name}: kind {spec.kind!r} must be one of {', '.join(KINDS)}")
    paths = read_pictures(folder, problems)
    captions = read_captions(folder, paths, problems)
    masks = read_masks(folder, paths, problems)
    word = spec.class_word or guess_class_word(spec.name)
    return Concept(
        spec.name, token, word, spec.kind, paths, captions, spec.init_word or None, spec.steps, mask_paths=masks
    )


def read_pictures(folder: Path, problems: list[str]) -> tuple[Path, ...]:
    """The pictures of `folder` by name, each opened once; what is wrong is added to `problems`."""
    if not folder.is_dir():
        near = (
            ", ".join(sorted(p.name for p in folder.parent.iterdir() if p.is_dir())[:8])
            if folder.parent.is_dir()
            else ""
        )
        problems.append(f"{folder} does not exist; " + (f"{folder.parent} has: {near}" if near else "check data_root"))
        return ()
    paths = tuple(sorted(p for p in folder.iterdir() if is_picture(p)))
    if not paths:
        problems.append(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    for path in paths:
        try:
            open_image(path)
        except ImageError as error:
            problems.append(str(error))
    return paths


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of a picture, not of a picture's loss mask."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not is_mask(path)


def read_captions(folder: Path, paths: Sequence[Path], problems: list[str]) -> tuple[str | None, ...]:
    """From a .txt beside the picture, else from metadata.jsonl ({"file_name", "text"}), else None."""
    table = _metadata(folder / "metadata.jsonl", {p.name for p in paths}, problems)
    out: list[str | None] = []
    for path in paths:
        beside = path.with_suffix(".txt")
        text = beside.read_text(encoding="utf-8", errors="replace").strip() if beside.exists() else ""
        out.append(text or table.get(path.name))
    return tuple(out)


def _metadata(file: Path, names: set[str], problems: list[str]) -> dict[str, str]:
    table: dict[str, str] = {}
    if not file.exists():
        return table
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, text = row["file_name"], row["text"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            problems.append(f'{file}, line {number}: expected {{"file_name": ..., "text": ...}} ({error!r})')
            continue
        if name not in names:
            problems.append(f"{file}, line {number}: there is no picture {name!r} in {file.parent}")
        table[name] = text
    return table


def check_words(concepts: Sequence[Concept], vocabulary: Vocabulary) -> None:
    """Refuse class nouns that the tokenizer shatters and start words that are not one token, before training.

    Raises DataError with one line a problem.
    """
    problems = []
    for concept in concepts:
        pieces = vocabulary.tokenizer.pieces(concept.class_word)
        if len(pieces) > _MAX_PIECES:
            problems.append(
                f"{concept.name}: the model does not know the class word {concept.class_word!r} (the tokenizer "
                f"breaks it into {' '.join(pieces)}); set class_word to a word it knows, e.g. a broader noun"
            )
        elif concept.init_word is not None and not vocabulary.is_single_token(concept.init_word):
            problems.append(f"{concept.name}: init_word {concept.init_word!r} is not one token; choose a simple word")
    if problems:
        raise DataError("\n".join(problems))
