"""Any picture file to a square float image: orientation, transparency, palettes and depths are settled here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class ImageError(ValueError):
    """A file that cannot be used as a picture."""


def open_image(path: Path) -> Image.Image:
    """The upright RGB picture: EXIF orientation applied, transparency on white, first frame of an animation.

    Raises ImageError naming the file, for an empty, truncated, unknown or absurdly large one.
    """
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes); copy it again or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return _rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(f"{path} has more than {limit} megapixels; save it smaller") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path} is no picture that Pillow can read; convert it to PNG or JPEG or remove it") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} is corrupt or cut short ({error}); copy it again or remove it") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "F"):
        deep = np.asarray(image, np.float64)
        top = 65535.0 if deep.max() > 255 else 255.0
        return Image.fromarray((deep.clip(0, top) / top * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def to_float(image: Image.Image) -> np.ndarray:
    """float32 (h, w, 3) in [-1, 1]."""
    return np.asarray(image, np.float32) / 127.5 - 1.0


def load_image(path: Path, size: int) -> np.ndarray:
    """The picture's centre square, float32 (size, size, 3) in [-1, 1]."""
    return to_float(ImageOps.fit(open_image(path), (size, size), Image.Resampling.LANCZOS))
