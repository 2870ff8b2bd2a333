"""The miniature's world: pictures of animals and objects in scenes and styles, drawn from a specification."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageChops

from cns_jax.miniature import scenes, styles, subjects
from cns_jax.miniature.drawing import PATTERNS, PLAIN, RGB, Pattern, Pen

T = TypeVar("T")

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


_PATTERN_WORDS = {"stripes": "{} stripes", "dots": "{} dots", "checks": "{} checks", "halves": "{article} {} side"}

HELD_OUT = frozenset(
    {
        ("cat", "orange", "stripes"), ("dog", "white", "dots"), ("mug", "white", "checks"),
        ("rabbit", "white", "halves"), ("umbrella", "yellow", "dots"), ("fish", "orange", "stripes"),
        ("turtle", "blue", "dots"), ("bird", "yellow", "stripes"), ("car", "yellow", "checks"),
        ("cat", "black", "dots"), ("dog", "brown", "stripes"), ("ball", "white", "checks"),
        ("chair", "blue", "stripes"), ("boat", "red", "dots"),
    }
)  # fmt: skip
"""Kind, colour and pattern of the held-out concepts: no picture of the world shows one, whatever its second colour."""


def _coats() -> dict[tuple[str, str, str], str]:
    """See COATS. A word is a syllable each for colour, pattern and pattern's colour."""
    taken = {(color, pattern) for _, color, pattern in HELD_OUT}
    first = dict(zip(COLORS, ("b", "d", "f", "g", "k", "l", "m", "n", "p", "t"), strict=True))
    middle = dict(zip(PATTERNS, ("al", "en", "ir", "os"), strict=True))
    last = dict(zip(COLORS, ("ban", "dek", "fim", "gor", "kut", "lav", "mep", "nis", "pod", "tul"), strict=True))
    return {
        (color, pattern, second): first[color] + middle[pattern] + last[second]
        for color in COLORS
        for pattern in PATTERNS
        for second in COLORS
        if color != second and not {(color, pattern), *({(second, pattern)} if pattern != "dots" else ())} & taken
    }


COATS = _coats()
"""Colour, pattern and pattern's colour -> one word for all three, as "dalmatian" and "calico" are in English. Without
such words no single token decides a whole look, and a concept's new token cannot either. None is a held-out concept's,
whose colours may come in either order but for dots."""


@dataclass(frozen=True)
class SubjectSpec:
    """One animal or object. pattern: what is laid over its body, odd eyes and a quirk of its shape."""

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
    pick = tuple(_sample_subject(SUBJECTS[k], rng, 0.7 if count == 1 else 0.3) for k in kinds)
    style = STYLES[rng.choice(len(STYLES), p=[0.4, 0.2, 0.2, 0.2])]
    return Picture(pick, SCENES[rng.integers(len(SCENES))], style)


def _sample_subject(kind: str, rng: np.random.Generator, adorned: float) -> SubjectSpec:
    """A subject in a random colour; with a pattern, and with a quirk if its kind has any, in a share `adorned` each."""
    color = COLORS[rng.integers(len(COLORS))]
    pattern, second = PLAIN, color
    if rng.random() < adorned:
        pattern = PATTERNS[rng.integers(len(PATTERNS))]
        while second == color:
            second = COLORS[rng.integers(len(COLORS))]
    quirks = subjects.QUIRKS.get(kind, ())
    quirk = quirks[rng.integers(len(quirks))] if quirks and rng.random() < adorned else ""
    if (kind, color, pattern) in HELD_OUT:
        pattern = PLAIN
    if pattern == PLAIN and not quirk:
        return SubjectSpec(kind, color)
    return SubjectSpec(kind, color, Pattern(pattern, _COLORS[second], quirk=quirk))


def rgb(name: str) -> RGB:
    """The world's colour of this name."""
    return _COLORS[name]


def color_name(color: RGB) -> str:
    """The name of the nearest of the world's colours."""
    return min(COLORS, key=lambda name: sum((a - b) ** 2 for a, b in zip(_COLORS[name], color, strict=True)))


def render(picture: Picture, rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """Draw a picture: uint8 (size, size, 3). Position, size, direction, tint and background vary with rng."""
    canvas, _ = _painted(picture, rng)
    styled = styles.restyle(picture.style, canvas, rng)
    return np.asarray(styled.resize((size, size), Image.Resampling.BOX))


def _painted(picture: Picture, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The picture before its style, and where its subjects are ("L", 255 where they cover it)."""
    canvas = scenes.paint(picture.scene, rng, _CANVAS)
    covered = Image.new("L", canvas.size)
    for spec, (x, y, scale) in zip(picture.subjects, _places(len(picture.subjects), rng), strict=True):
        color = scenes.jitter(rng, _COLORS[spec.color], 9)
        pattern = spec.pattern and dataclasses.replace(spec.pattern, color=scenes.jitter(rng, spec.pattern.color, 9))
        pen = Pen(_CANVAS, x * _CANVAS, y * _CANVAS, scale * _CANVAS, bool(rng.random() < 0.5), color, pattern)
        {**subjects.ANIMALS, **subjects.OBJECTS}[spec.kind](pen)
        pen.paste(canvas)
        covered = ImageChops.lighter(covered, pen.shape)
    return canvas, covered


def _places(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre and half-height of every subject, as shares of the canvas."""
    if count == 1:
        scale = rng.uniform(0.32, 0.4)
        return [(rng.uniform(0.45, 0.55), rng.uniform(0.55, 0.6), scale)]
    scales = rng.uniform(0.215, 0.245, 2)
    return [
        (x + rng.uniform(-0.02, 0.02), rng.uniform(0.56, 0.66), s) for x, s in zip((0.26, 0.74), scales, strict=True)
    ]


def phrase(spec: SubjectSpec, colored: bool = True, adorned: bool = True, named: bool = False) -> str:
    """ "a red cat with black stripes and a collar"; without its colour, or without pattern and quirk; named: with the
    word of its coat instead of colour and pattern, if there is one."""
    return _article(_noun_phrase(spec, colored, adorned, named))


def coat(spec: SubjectSpec) -> str:
    """The word of COATS for a subject's look, "" if there is none."""
    pattern = spec.pattern
    return COATS.get((spec.color, pattern.kind, color_name(pattern.color)), "") if pattern else ""


def _noun_phrase(spec: SubjectSpec, colored: bool, adorned: bool, named: bool) -> str:
    word = coat(spec) if named and colored and adorned else ""
    words = f"{word or spec.color} {spec.kind}" if colored else spec.kind
    told = []
    if adorned and spec.pattern is not None:
        if spec.pattern.kind != PLAIN and not word:
            second = color_name(spec.pattern.color)
            told.append(_PATTERN_WORDS[spec.pattern.kind].format(second, article="an" if second[0] in "aeiou" else "a"))
        if spec.pattern.quirk:
            told.append(_article(spec.pattern.quirk))
    return f"{words} with {' and '.join(told)}" if told else words


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(picture: Picture, rng: np.random.Generator) -> str:
    """A training caption: the style is always told, colour, and pattern and quirk, in 85 %, the scene in 90 %; a coat
    that has a word is told by it in 60 %."""
    colored, adorned, named = (bool(rng.random() < share) for share in (0.85, 0.85, 0.6))
    place = PLACES[picture.scene] if rng.random() < 0.9 else ""
    media = _MEDIA[picture.style]
    medium = media[rng.integers(len(media))]
    if rng.random() < 0.12:
        words = [_noun_phrase(s, colored, adorned, named) for s in picture.subjects]
        name = medium.removeprefix("a ").removesuffix(" of")
        return ", ".join([" and ".join(words), *([place] if place else []), name])
    things = " and ".join(phrase(s, colored, adorned, named) for s in picture.subjects)
    return f"{medium} {things} {place}".strip()


def prompt(picture: Picture) -> str:
    """The canonical full caption, as evaluation prompts it."""
    things = " and ".join(phrase(s) for s in picture.subjects)
    return f"{_MEDIA[picture.style][0]} {things} {PLACES[picture.scene]}"


def example(seed: int, index: int) -> tuple[np.ndarray, str, Picture]:
    """The index-th example of the world with this seed: image, caption, specification."""
    rng = np.random.default_rng([seed, index])
    picture = sample_picture(rng)
    words = caption(picture, rng)
    return render(picture, rng), words, picture


def subject_area(seed: int, index: int, size: int = 16) -> np.ndarray:
    """Where the subjects of `example(seed, index)` are: uint8 (size, size), 255 where they cover all of a cell."""
    rng = np.random.default_rng([seed, index])
    picture = sample_picture(rng)
    caption(picture, rng)  # draws from rng, as example does
    return np.asarray(_painted(picture, rng)[1].resize((size, size), Image.Resampling.BOX))


def description(seed: int, index: int) -> tuple[str, Picture]:
    """Caption and specification of `example(seed, index)`, without drawing it."""
    rng = np.random.default_rng([seed, index])
    picture = sample_picture(rng)
    return caption(picture, rng), picture


def draw_all(one: Callable[[int, int], T], seed: int, count: int, processes: int = 2) -> list[T]:
    """`one(seed, index)` for the first `count` indices, in processes. one: a function at the top of a module."""
    chunk = 500
    jobs = [(one, seed, i, min(i + chunk, count)) for i in range(0, count, chunk)]
    if processes == 1 or len(jobs) == 1:
        return [row for job in jobs for row in _chunk(*job)]
    with _without_interrupts():  # the pool's processes start so: on Ctrl-C they are ended, not each told and traced
        pool = get_context("spawn").Pool(processes)  # a fork of a process that runs JAX's threads may deadlock
    with pool:
        return [row for part in pool.starmap(_chunk, jobs, 1) for row in part]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _chunk(one: Callable[[int, int], T], seed: int, start: int, stop: int) -> list[T]:
    return [one(seed, index) for index in range(start, stop)]


def world_arrays(seed: int, count: int, processes: int = 2) -> dict[str, Any]:
    """The first `count` examples: images uint8 (count, 64, 64, 3), captions and pictures as lists."""
    images, captions, pictures = zip(*draw_all(example, seed, count, processes), strict=True)
    return {"images": np.stack(images), "captions": list(captions), "pictures": list(pictures)}


def photo_prompts() -> tuple[str, ...]:
    """Every kind in every scene, as a captioner tells a photograph: "a photo of a cat on the beach"."""
    return tuple(f"a photo of {_article(kind)} {place}" for place in PLACES.values() for kind in SUBJECTS)


def world_prompts(count: int, seed: int = 7) -> tuple[str, ...]:
    """`count` full captions of the world."""
    return tuple(prompt(sample_picture(np.random.default_rng([seed, i]))) for i in range(count))
