"""The miniature's world: pictures of animals and objects in scenes and styles, drawn from a specification."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from PIL import Image

from cns_jax.miniature import scenes, styles, subjects
from cns_jax.miniature.drawing import RGB, Pattern, Pen

SIZE = 64
_CANVAS = 128

ANIMALS = tuple(subjects.ANIMALS)
OBJECTS = tuple(subjects.OBJECTS)
SUBJECTS = ANIMALS + OBJECTS
SCENES = tuple(scenes.SCENES)
STYLES = tuple(styles.STYLES)

_COLORS: dict[str, RGB] = {
    "red": (218, 38, 40),
    "orange": (248, 138, 24),
    "yellow": (252, 222, 54),
    "green": (44, 168, 66),
    "blue": (44, 84, 222),
    "purple": (140, 54, 196),
    "pink": (252, 138, 192),
    "brown": (124, 74, 38),
    "black": (46, 46, 54),
    "white": (246, 246, 246),
}
COLORS = tuple(_COLORS)

PLACES = {
    "beach": "on the beach",
    "forest": "in the forest",
    "snow": "in the snow",
    "city": "in the city",
    "desert": "in the desert",
    "space": "in space",
}
_MEDIA = {
    "photo": ("a photo of", "a picture of", "a photo of"),
    "watercolor": ("a watercolor painting of", "a watercolor of"),
    "sketch": ("a pencil sketch of", "a sketch of"),
    "pixel": ("pixel art of", "a pixel art picture of"),
}


@dataclass(frozen=True)
class SubjectSpec:
    """One animal or object. pattern: only held-out concepts have one."""

    kind: str
    color: str
    pattern: Pattern | None = None


@dataclass(frozen=True)
class Picture:
    """What a picture shows: one or two subjects, a scene and a style (held-out ones allowed)."""

    subjects: tuple[SubjectSpec, ...]
    scene: str
    style: str


def sample_picture(rng: np.random.Generator) -> Picture:
    """A draw from the world: 30 % have two subjects of different kinds; 40 % are photos."""
    count = 2 if rng.random() < 0.3 else 1
    kinds = rng.choice(len(SUBJECTS), count, replace=False)
    pick = tuple(SubjectSpec(SUBJECTS[k], COLORS[rng.integers(len(COLORS))]) for k in kinds)
    style = STYLES[rng.choice(len(STYLES), p=[0.4, 0.2, 0.2, 0.2])]
    return Picture(pick, SCENES[rng.integers(len(SCENES))], style)


def render(picture: Picture, rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """Draw a picture: uint8 (size, size, 3). Position, size, direction, tint and background vary with rng."""
    canvas = scenes.paint(picture.scene, rng, _CANVAS)
    for spec, (x, y, scale) in zip(picture.subjects, _places(len(picture.subjects), rng), strict=True):
        color = scenes.jitter(rng, _COLORS[spec.color], 9)
        pen = Pen(_CANVAS, x * _CANVAS, y * _CANVAS, scale * _CANVAS, bool(rng.random() < 0.5), color, spec.pattern)
        {**subjects.ANIMALS, **subjects.OBJECTS}[spec.kind](pen)
        pen.paste(canvas)
    styled = styles.restyle(picture.style, canvas, rng)
    return np.asarray(styled.resize((size, size), Image.Resampling.BOX))


def _places(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre and half-height of every subject, as shares of the canvas."""
    if count == 1:
        scale = rng.uniform(0.27, 0.36)
        return [(rng.uniform(0.42, 0.58), rng.uniform(0.54, 0.62), scale)]
    scales = rng.uniform(0.2, 0.235, 2)
    return [
        (x + rng.uniform(-0.02, 0.02), rng.uniform(0.56, 0.66), s) for x, s in zip((0.26, 0.74), scales, strict=True)
    ]


def phrase(spec: SubjectSpec, colored: bool) -> str:
    """ "a red cat", or "a cat" without its colour."""
    words = f"{spec.color} {spec.kind}" if colored else spec.kind
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(picture: Picture, rng: np.random.Generator) -> str:
    """A training caption: the style is always told, the colour in 85 % and the scene in 90 %."""
    colored = bool(rng.random() < 0.85)
    things = " and ".join(phrase(s, colored) for s in picture.subjects)
    place = PLACES[picture.scene] if rng.random() < 0.9 else ""
    media = _MEDIA[picture.style]
    medium = media[rng.integers(len(media))]
    if rng.random() < 0.12:
        words = [f"{s.color} {s.kind}" if colored else s.kind for s in picture.subjects]
        name = medium.removeprefix("a ").removesuffix(" of")
        return ", ".join([" and ".join(words), *([place] if place else []), name])
    return f"{medium} {things} {place}".strip()


def prompt(picture: Picture) -> str:
    """The canonical full caption, as evaluation prompts it."""
    things = " and ".join(phrase(s, True) for s in picture.subjects)
    return f"{_MEDIA[picture.style][0]} {things} {PLACES[picture.scene]}"


def example(seed: int, index: int) -> tuple[np.ndarray, str, Picture]:
    """The index-th example of the world with this seed: image, caption, specification."""
    rng = np.random.default_rng([seed, index])
    picture = sample_picture(rng)
    words = caption(picture, rng)
    return render(picture, rng), words, picture


def description(seed: int, index: int) -> tuple[str, Picture]:
    """Caption and specification of `example(seed, index)`, without drawing it."""
    rng = np.random.default_rng([seed, index])
    picture = sample_picture(rng)
    return caption(picture, rng), picture


def _examples(arguments: tuple[int, int, int]) -> list[tuple[np.ndarray, str, Picture]]:
    seed, start, stop = arguments
    return [example(seed, index) for index in range(start, stop)]


def world_arrays(seed: int, count: int, processes: int = 2) -> dict[str, Any]:
    """The first `count` examples: images uint8 (count, 64, 64, 3), captions and pictures as lists."""
    chunk = 500
    jobs: Sequence[tuple[int, int, int]] = [(seed, i, min(i + chunk, count)) for i in range(0, count, chunk)]
    if processes > 1 and len(jobs) > 1:
        # spawn: a fork of a process that runs JAX's threads may deadlock
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            rows = [row for part in pool.map(_examples, jobs) for row in part]
    else:
        rows = [row for job in jobs for row in _examples(job)]
    images, captions, pictures = zip(*rows, strict=True)
    return {"images": np.stack(images), "captions": list(captions), "pictures": list(pictures)}


def world_prompts(count: int, seed: int = 7) -> tuple[str, ...]:
    """`count` full captions of the world: calibration prompts in the miniature's own vocabulary."""
    return tuple(prompt(sample_picture(np.random.default_rng([seed, i]))) for i in range(count))
