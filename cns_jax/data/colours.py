"""Any depth, colour space and profile to 8-bit sRGB."""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

log = logging.getLogger(__name__)

_MARGIN = 0.25  # how far numbers of 0..1 may overshoot, as sharpening and resizing make them
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_ALIKE = 2  # levels of 255: sRGB to sRGB rounds by as much
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}


class DepthError(ValueError):
    """Numbers of which nothing says which one is white."""


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture with at most 8 bits a channel; one that has no more is returned as it is.

    Whole numbers of 16 bits are scaled by 65535, those of 12 bits by 4095, floats by 1: never by the picture's own
    maximum. Raises DepthError for signed and 32-bit numbers, and for floats that are not about 0 to 1. `image` must be
    the one that was opened: a copy has lost the tags of a TIFF.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags:
        raise DepthError("has signed or 32-bit whole numbers, of which none is white by definition; save 8 or 16 bits")
    deep = np.asarray(image, np.float64)
    if image.mode == "F":
        low, high = float(deep.min()), float(deep.max())
        if not (-_MARGIN <= low and high <= 1 + _MARGIN):  # NaN, too
            raise DepthError(f"has floats from {low:g} to {high:g}, where black is 0 and white is 1; save 0 to 1")
    bits = tags.get(_BITS, (16,))[0]
    white = 1.0 if image.mode == "F" else 2.0**bits - 1
    shares = deep.clip(0, white) / white
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        shares = 1 - shares
    out = Image.fromarray((shares * 255).round().astype(np.uint8))
    out.info = dict(image.info)
    return out


def to_srgb(image: Image.Image, path: Path) -> Image.Image:
    """The 8-bit picture as RGB, sRGB, transparency on white. A profile that cannot be used is ignored with one warning
    a folder; without a profile, and with sRGB's, every byte stays. path: of its file, for the warning."""
    colour, alpha = _parts(image)
    rgb = _converted(colour, image.info.get("icc_profile"), path)
    if alpha is None:
        return rgb
    over = rgb.convert("RGBA")
    over.putalpha(alpha)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, over).convert("RGB")


def _parts(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """(RGB, grey, CMYK or Lab; transparency or None)."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("L", "LA")
        rgba = image.convert("RGBA")
        return (image.convert("L") if grey else rgba.convert("RGB")), rgba.getchannel("A")
    if image.mode in _SPACES:
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _converted(image: Image.Image, profile: bytes | None, path: Path) -> Image.Image:
    if image.mode != "LAB" and not profile:
        return image.convert("RGB")
    found = _transform(profile or b"", image.mode)
    if isinstance(found, str):
        _warn(path, profile or b"", found)
        return image.convert("RGB")
    if found is None:
        return image.convert("RGB")
    mode, transform = found
    out = ImageCms.applyTransform(image.convert(mode), transform)
    assert out is not None  # it is None for a change in place only
    return out


_told: set[tuple[Path, bytes]] = set()


def _warn(path: Path, profile: bytes, why: str) -> None:
    key = path.parent, hashlib.sha256(profile).digest()
    if key not in _told:
        log.warning("%s: the colour profile is ignored, its colours are read as sRGB: %s", path, why)
    _told.add(key)


@lru_cache(32)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform] | str | None:
    """(the mode to convert from, the transform to sRGB); None if that changes nothing; why not, if it cannot be."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
        space = source.profile.xcolor_space.strip()
        start = "RGB" if mode == "L" and space == "RGB" else mode  # a grey picture with a profile for colours
        if _SPACES[start] != space:
            return f"it is for {space} pictures, this one is {mode}"
        # relative with black point compensation is what image programs do by default
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(source, srgb, start, "RGB", intent, flags)
    except (OSError, ImageCms.PyCMSError, ValueError, TypeError) as error:
        return f"it is damaged ({error})"
    if start in ("RGB", "L") and _changes_nothing(transform, start):
        return None
    return start, transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    if mode == "L":
        levels = np.arange(256, dtype=np.uint8)
        probe = Image.fromarray(levels[None])
    else:
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3))
    seen = ImageCms.applyTransform(probe, transform)
    assert seen is not None
    before, after = (np.asarray(i.convert("RGB"), np.int16) for i in (probe, seen))
    return int(np.abs(before - after).max()) <= _ALIKE
