"""Drawn concepts beside those of the three sets: as many as wanted, no two alike, for long runs of lessons."""

from __future__ import annotations

from itertools import islice, product
from pathlib import Path

import numpy as np
from PIL import Image

from cns_jax.core.types import SUBJECT
from cns_jax.miniature.concepts import SETS, TRAIN_IMAGES, MiniConcept, render_concept
from cns_jax.miniature.drawing import Pattern
from cns_jax.miniature.subjects import QUIRKS
from cns_jax.miniature.world import COLORS, HELD_OUT, SUBJECTS, SubjectSpec, color_name, rgb

_SEED = 20


def variations(count: int) -> tuple[MiniConcept, ...]:
    """Subjects of every kind in turn, in colours and patterns of the sets' concepts, for which the world has no word.

    Of one kind, no two have the same two colours, nor the same colour and pattern; those of the sets count, too. Raises
    ValueError if there are not so many.
    """
    rng = np.random.default_rng(_SEED)
    coats = sorted({(color, pattern) for _, color, pattern in HELD_OUT})
    pairs = [(coat, second) for coat, second in product(coats, COLORS) if second != coat[0]]
    taken = {mark for row in SETS for c in row if c.subject for mark in _marks(c.subject)}
    found: list[MiniConcept] = []
    while len(found) < count:
        before = len(found)
        for kind in SUBJECTS:
            order = (pairs[i] for i in rng.permutation(len(pairs)))
            drawn = (_of(kind, coat, second, rng) for coat, second in order)
            free = (c for c in drawn if c.subject and not _marks(c.subject) & taken)
            for concept in islice(free, 1):
                taken |= _marks(concept.subject)  # type: ignore[arg-type]
                found.append(concept)
        if len(found) == before:
            raise ValueError(f"there are {before} variations, {count} are wanted")
    return tuple(found[:count])


def _marks(spec: SubjectSpec) -> set[tuple[object, ...]]:
    """What another subject of its kind may not share."""
    assert spec.pattern is not None
    colors = frozenset({spec.color, color_name(spec.pattern.color)})
    return {(spec.kind, spec.color, spec.pattern.kind), (spec.kind, colors)}


def _of(kind: str, coat: tuple[str, str], second: str, rng: np.random.Generator) -> MiniConcept:
    color, pattern = coat
    quirks = ("", *QUIRKS.get(kind, ()))
    quirk = quirks[rng.integers(len(quirks))]
    name = f"{color}_{second}_{pattern}_{kind}"
    spec = SubjectSpec(kind, color, Pattern(pattern, rgb(second), quirk=quirk))
    return MiniConcept(name, f"<{name}>", kind, SUBJECT, spec)


def mixed_sets() -> tuple[MiniConcept, ...]:
    """The 21 concepts of the sets, one of each in turn."""
    return tuple(concept for place in zip(*SETS, strict=True) for concept in place)


def sequence(length: int) -> tuple[MiniConcept, ...]:
    """Concepts of a long run: of the sets one after another, and where there are not enough, variations with the sets'
    subjects and with their scenes and styles spread evenly among them: the first lessons are then a mixture like the
    last ones."""
    own = mixed_sets()
    if length <= len(own):
        return own[:length]
    subjects, settings = ([c for c in own if (c.kind == SUBJECT) is wanted] for wanted in (True, False))
    streams = (variations(length - len(own)), subjects, settings)
    placed = [((i + 0.5) / len(stream), concept) for stream in streams for i, concept in enumerate(stream)]
    return tuple(concept for _, concept in sorted(placed, key=lambda pair: pair[0]))


def write_pictures(concept: MiniConcept, root: Path) -> None:
    """Its training pictures with captions as a plain folder, `root/<name>`."""
    folder = root / concept.name
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(TRAIN_IMAGES):
        image, words, _ = render_concept(concept, index, "train")
        Image.fromarray(image).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(words + "\n")
