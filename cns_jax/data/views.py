"""Views: the fixed set of crops and flips of a picture that is encoded once and trained on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cns_jax.data.images import open_image, to_float

_SMALLEST = 0.85  # side of a random crop, as a share of the largest square


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, first 16 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def views(path: Path, size: int, count: int, seed: int, flip: bool = True) -> np.ndarray:
    """`count` views, float32 (count, size, size, 3) in [-1, 1].

    View 0 is the centre square; the others are random squares of 85 to 100 % of it, half of them mirrored if
    `flip`. A view depends on the file's content, the seed and its index only.
    """
    image = open_image(path)
    square = ImageOps.fit(image, (min(image.size),) * 2)
    entropy = int(content_hash(path), 16)
    return np.stack(
        [_view(image, square, size, np.random.default_rng([entropy, seed, i]), i, flip) for i in range(count)]
    )


def _view(
    image: Image.Image, square: Image.Image, size: int, rng: np.random.Generator, index: int, flip: bool
) -> np.ndarray:
    if index == 0:
        return to_float(square.resize((size, size), Image.Resampling.LANCZOS))
    side = rng.uniform(_SMALLEST, 1.0) * min(image.size)
    left = (image.size[0] - side) / 2 + rng.uniform(-0.5, 0.5) * (min(image.size) - side)
    top = (image.size[1] - side) / 2 + rng.uniform(-0.5, 0.5) * (min(image.size) - side)
    crop = image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return to_float(ImageOps.mirror(crop) if flip and rng.random() < 0.5 else crop)
