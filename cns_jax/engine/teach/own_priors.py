"""The user's own regularization pictures (`prior.folder`): prior images that are not generated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cns_jax.core.types import Concept
from cns_jax.data.caption_files import read_captions
from cns_jax.data.captions import class_prompt
from cns_jax.data.folder import DataError
from cns_jax.data.pictures import pictures_in, read_pictures
from cns_jax.data.stray import own
from cns_jax.engine.settings import RunSettings


class OwnPriors(NamedTuple):
    """What the steps take of a concept's own prior images. prompts: one a picture; found: pictures in the folder."""

    folder: Path
    paths: tuple[Path, ...]
    prompts: tuple[str, ...]
    found: int


def own_priors(settings: RunSettings, concepts: Sequence[Concept]) -> list[OwnPriors]:
    """Of each concept; at most prior.images, which the seed chooses where there are more.

    Raises DataError with all that is wrong: no such folder, no pictures for a concept, pictures that cannot be read.
    """
    root = Path(settings.prior.folder).expanduser()
    if not root.is_dir():
        raise DataError(f"prior.folder {root} is not a folder; give one with pictures, or with a sub-folder a class")
    problems: list[str] = []
    folders = [_folder(root, concept, problems) for concept in concepts]
    read = {folder: _read(folder, problems) for folder in dict.fromkeys(folders) if folder}
    if problems:
        raise DataError("\n".join(problems))
    return [_chosen(settings, c, f, *read[f]) for c, f in zip(concepts, folders, strict=True) if f]


def _folder(root: Path, concept: Concept, problems: list[str]) -> Path | None:
    """Where the concept's pictures lie: a sub-folder of its name, else of its class word, else `root`."""
    inside = [p for p in own(root) if p.is_dir()]
    for word in (concept.name, concept.class_word):
        found = [p for p in inside if _plain(p.name) == _plain(word)]
        if len(found) > 1:
            problems.append(f"prior.folder {root} has {' and '.join(p.name for p in found)} for {word!r}; keep one")
            return None
        if found:
            return found[0]
    if pictures_in(root):
        return root
    there = f"; it has the folders {', '.join(p.name for p in inside[:8])}" if inside else ""
    problems.append(
        f"prior.folder {root} has no pictures for {concept.name}: put them into {root / concept.class_word} (its class "
        f"word), {root / concept.name} or {root} itself{there}"
    )
    return None


def _plain(name: str) -> str:
    """Of a folder or word, what counts: "1_Sports_Car", as kohya's tools want it, is "sports car"."""
    return re.sub(r"^\d+_(?=.)", "", name).replace("_", " ").lower()


def _read(folder: Path, problems: list[str]) -> tuple[tuple[Path, ...], tuple[str | None, ...]]:
    paths = read_pictures(folder, problems)
    return paths, read_captions(folder, paths, problems)


def _chosen(
    settings: RunSettings, concept: Concept, folder: Path, paths: Sequence[Path], captions: Sequence[str | None]
) -> OwnPriors:
    order = np.random.default_rng(settings.seed).permutation(len(paths))
    chosen = sorted(order[: settings.prior.images])
    prompts = tuple(captions[i] or class_prompt(concept) for i in chosen)
    return OwnPriors(folder, tuple(paths[i] for i in chosen), prompts, len(paths))
