"""Whole-image styles, applied to a finished picture; the last four appear only in held-out concepts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray
_PANES = 240
Restyle = Callable[[Image.Image, np.random.Generator], Image.Image]


def _array(image: Image.Image) -> Array:
    return np.asarray(image, np.float32)


def _image(array: Array) -> Image.Image:
    return Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))


def _edges(image: Image.Image) -> Array:
    gray = _array(image.convert("L").filter(ImageFilter.GaussianBlur(1)))
    gy, gx = np.gradient(gray)
    return np.minimum(np.hypot(gx, gy) / 22.0, 1.0)[..., None]


def photo(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The plain rendering with a soft vignette."""
    s = image.size[0]
    y, x = np.mgrid[-1 : 1 : s * 1j, -1 : 1 : s * 1j]
    return _image(_array(image) * (1.03 - 0.16 * (x * x + y * y) / 2)[..., None])


def watercolor(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bleeding colours on white paper, pale, with a white deckled border."""
    s = image.size[0]
    soft = _array(image.filter(ImageFilter.ModeFilter(5)).filter(ImageFilter.GaussianBlur(1.2)))
    blotches = _array(_image(rng.uniform(0, 255, (9, 9))).resize((s, s), Image.Resampling.BICUBIC))[..., None] / 255
    pale = soft + (255 - soft) * (0.08 + 0.3 * blotches)
    ramp = np.arange(s) / s
    edge = np.minimum(ramp, 1 - ramp)
    border = np.minimum(edge[:, None], edge[None])[..., None] + 0.03 * blotches
    return _image(np.where(border < 0.055, 250.0, pale))


def sketch(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Coloured pencil: cream paper, grey outlines, diagonal hatching over a light tint."""
    s = image.size[0]
    base = _array(image)
    y, x = np.mgrid[0:s, 0:s]
    hatch = (((x + y) // 5) % 2)[..., None]
    paper = np.asarray([250.0, 244.0, 228.0])
    tint = paper * (0.2 + 0.26 * hatch) + base * (0.8 - 0.26 * hatch)
    return _image(tint * (1 - 0.7 * _edges(image)) + 50 * 0.7 * _edges(image))


def pixel(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Pixel art: blocks of 4 picture pixels in few, saturated colours."""
    s = image.size[0]
    small = _array(image.resize((22, 22), Image.Resampling.BOX))
    mean = small.mean(-1, keepdims=True)
    vivid = np.round((mean + 1.35 * (small - mean)) / 36) * 36
    big = _image(vivid).resize((s + s // 32, s + s // 32), Image.Resampling.NEAREST)
    return big.crop((0, 0, s, s))


def stained_glass(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Held out: glowing panes in black lead."""
    s = image.size[0]
    points = rng.uniform(0, s, (_PANES, 2))
    y, x = np.mgrid[0:s, 0:s]
    d = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
    order = np.argpartition(d, 1, axis=-1)[..., :2]
    near = np.take_along_axis(d, order, -1)
    cell = order[..., 0]
    base = _array(image)
    count = np.maximum(np.bincount(cell.ravel(), minlength=_PANES), 1)
    panes = np.stack([np.bincount(cell.ravel(), base[..., c].ravel(), minlength=_PANES) / count for c in range(3)], -1)
    glass = panes[cell]
    mean = glass.mean(-1, keepdims=True)
    glass = (mean + 1.7 * (glass - mean)) * 1.12
    lead = np.abs(np.sqrt(near[..., 0]) - np.sqrt(near[..., 1])) < 1.6
    return _image(np.where(lead[..., None], 16.0, glass))


def blueprint(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Held out: white lines on blue squared paper."""
    s = image.size[0]
    y, x = np.mgrid[0:s, 0:s]
    grid = (((x % 16) < 1) | ((y % 16) < 1))[..., None]
    paper = np.asarray([28.0, 72.0, 160.0]) + 30 * grid
    shade = 0.14 * (_array(image.convert("L"))[..., None] - 128)
    edges = np.minimum(_edges(image) * 1.7, 1)
    return _image((paper + shade) * (1 - edges) + np.asarray([235.0, 242.0, 255.0]) * edges)


def comic(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Held out: four flat inks with halftone dots and thick black lines."""
    s = image.size[0]
    gray = _array(image.convert("L"))
    y, x = np.mgrid[0:s, 0:s]
    dots = np.hypot((x + y) % 10 - 5, (x - y) % 10 - 5) / 6.5
    ink = np.where((dots < (1 - gray / 255) * 1.15)[..., None], [225.0, 40.0, 60.0], [255.0, 228.0, 110.0])
    return _image(ink * (1 - np.minimum(_edges(image) * 1.5, 1)))


def thermal(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Held out: a heat camera's violet, red and yellow by brightness."""
    gray = _array(image.convert("L").filter(ImageFilter.GaussianBlur(1))) / 255
    stops = np.asarray([[12, 6, 60], [120, 20, 140], [225, 50, 60], [250, 170, 30], [255, 252, 200]], np.float32)
    at = np.linspace(0, 1, len(stops))
    return _image(np.stack([np.interp(gray, at, stops[:, c]) for c in range(3)], -1))


STYLES: dict[str, Restyle] = {"photo": photo, "watercolor": watercolor, "sketch": sketch, "pixel": pixel}
HELD_OUT_STYLES: dict[str, Restyle] = {
    "stained glass": stained_glass,
    "blueprint": blueprint,
    "comic": comic,
    "thermal": thermal,
}


def restyle(name: str, image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`image` in the named style."""
    return ({**STYLES, **HELD_OUT_STYLES})[name](image, rng)
