"""Views: the fixed set of crops and flips of a picture that is encoded once and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cns_jax.core.files import digest
from cns_jax.data.images import open_image, to_float

_SMALLEST = 0.85  # side of a random crop, as a share of the largest one

Size = tuple[int, int]
"""Width and height in pixels, as Pillow has them."""


class Frame(NamedTuple):
    """What a view shows: a box (left, top, right, bottom) of the upright picture in pixels, mirrored or not."""

    box: tuple[float, float, float, float]
    mirrored: bool


def largest(of: Size, size: Size) -> tuple[float, float]:
    """Width and height of the largest box with the aspect of `size` in a picture `of` so many pixels."""
    (width, height), (w, h) = of, size
    return (width, width * h / w) if width * h <= height * w else (height * w / h, height)


def frames(path: Path, of: Size, size: Size, count: int, seed: int, flip: bool = True) -> list[Frame]:
    """What `count` views of the picture at `path`, which has `of` pixels, show.

    View 0 is the largest box in the centre with the aspect of `size`; the others are random boxes of 85 to 100 % of its
    sides, half of them mirrored if `flip`. A frame depends on the file's content, the seed and its index only.
    """
    entropy = int(digest(path), 16)
    return [_frame(of, largest(of, size), np.random.default_rng([entropy, seed, i]), i, flip) for i in range(count)]


def _frame(of: Size, most: tuple[float, float], rng: np.random.Generator, index: int, flip: bool) -> Frame:
    share = rng.uniform(_SMALLEST, 1.0) if index else 1.0
    sides = share * most[0], share * most[1]
    shifts = (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)) if index else (0.0, 0.0)
    left, top = ((of[i] - sides[i]) / 2 + shifts[i] * (most[i] - sides[i]) for i in (0, 1))
    return Frame((left, top, left + sides[0], top + sides[1]), bool(index and flip and rng.random() < 0.5))


def views(path: Path, size: Size, count: int, seed: int, flip: bool = True) -> np.ndarray:
    """`count` views of the picture (see `frames`), float32 (count, height, width, 3) in [-1, 1]."""
    image = open_image(path)
    centre, *others = frames(path, image.size, size, count, seed, flip)
    return np.stack([first_view(image, size), *(_shown(image, frame, size) for frame in others)])


def first_view(image: Image.Image, size: Size) -> np.ndarray:
    """The largest box in the centre, float32 (height, width, 3) in [-1, 1]."""
    width, height = largest(image.size, size)
    box = ImageOps.fit(image, (max(round(width), 1), max(round(height), 1)))
    return to_float(box.resize(size, Image.Resampling.LANCZOS))


def _shown(image: Image.Image, frame: Frame, size: Size) -> np.ndarray:
    crop = image.resize(size, Image.Resampling.LANCZOS, box=frame.box)
    return to_float(ImageOps.mirror(crop) if frame.mirrored else crop)
