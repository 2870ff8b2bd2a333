"""Loss masks: how much each place of a picture is learned, by a picture beside it or by its own transparency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cns_jax.data.formats import MASKS, is_mask
from cns_jax.data.images import ImageError, open_image
from cns_jax.data.stray import own
from cns_jax.data.views import Size, frames, largest

DARK = 25
"""A mask without a brighter value teaches nothing: it is empty, or has labels 0 and 1."""


def read_masks(folder: Path, paths: Sequence[Path], problems: list[str]) -> tuple[Path | None, ...]:
    """The mask of each picture in `folder`: 1.mask.png (or 1.png.mask.png) beside 1.png, else None.

    Each is opened once; what is wrong is added to `problems`.
    """
    owners: dict[Path, Path] = {}
    for mask in (p for p in own(folder) if is_mask(p)) if paths else ():
        ending = next(e for e in MASKS if mask.stem.lower().endswith(e))
        name = mask.stem[: -len(ending)]
        named = [p for p in paths if p.name == name] or [p for p in paths if p.stem == name]
        if len(named) != 1:
            found = " and ".join(p.name for p in named) or f"no picture {name!r}"
            problems.append(f"{mask} is a loss mask, but beside it is {found}; name it as one picture, or remove it")
        elif named[0] in owners:
            problems.append(f"{named[0]} has two loss masks, {owners[named[0]].name} and {mask.name}; remove one")
        else:
            owners[named[0]] = mask
            problems += _problems(mask, named[0])
    return tuple(owners.get(path) for path in paths)


def _problems(mask: Path, picture: Path) -> list[str]:
    try:
        (w, h), (width, height) = open_mask(mask).size, open_image(picture).size
    except ImageError as error:
        return [str(error)] if str(mask) in str(error) else []  # the picture's was told by who read the pictures
    if abs(w * height - h * width) <= max(width, height):  # a pixel of rounding
        return []
    return [
        f"{mask} is {w} x {h}, its picture {width} x {height} (upright); a loss mask may have another size, but not "
        "another shape"
    ]


def open_mask(path: Path) -> Image.Image:
    """The upright mask in mode L: 255 is learned, 0 is not. Colours count by their brightness, transparency is black.

    Raises ImageError as `open_image` does.
    """
    image = _upright(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        top = 1.0 if image.mode == "F" else 65535.0  # by what the kind can hold, not by what this one holds
        return Image.fromarray((np.asarray(image, np.float64).clip(0, top) / top * 255).round().astype(np.uint8))
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image.convert("L")


def open_alpha(path: Path) -> Image.Image | None:
    """A picture's opacity as a mask; None for one without. Raises ImageError as `open_image` does."""
    image = _upright(path)
    return image.convert("RGBA").getchannel("A") if _is_transparent(image) else None


def brightest(mask: Image.Image, size: Size) -> int:
    """The highest value of the mask in the part of its picture that views of `size` show, from 0 to 255."""
    (width, height), (w, h) = mask.size, largest(mask.size, size)
    seen = mask.crop((int((width - w) / 2), int((height - h) / 2), -int(-(width + w) // 2), -int(-(height + h) // 2)))
    return int(np.asarray(seen).max())


def _upright(path: Path) -> Image.Image:
    open_image(path)  # which refuses what is no picture
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def mask_views(
    path: Path, mask: Image.Image, size: Size, of: Size, count: int, seed: int, flip: bool = True
) -> np.ndarray:
    """The mask of each view of the picture at `path` (see `frames`), float32 (count, h, w) in [0, 1].

    size: of the views in pixels; of: (w, h), to which means are taken over areas. mask: of the whole picture, in any
    size.
    """
    picture = open_image(path).size
    x, y = mask.size[0] / picture[0], mask.size[1] / picture[1]
    out = []
    for (left, top, right, bottom), mirrored in frames(path, picture, size, count, seed, flip):
        box = left * x, top * y, min(right * x, mask.size[0]), min(bottom * y, mask.size[1])
        shown = mask.resize(of, Image.Resampling.BOX, box=box)
        out.append(np.asarray(ImageOps.mirror(shown) if mirrored else shown, np.float32) / 255)
    return np.stack(out)
