"""Any picture file to a square float image: orientation, transparency, palettes, depths and colour profiles are
settled here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cns_jax.data.colours import DepthError, eight_bits, to_srgb
from cns_jax.data.formats import EXTRA, FORMATS, impostor, plugin_of
from cns_jax.data.stray import dangling, link_problem

_HEAD = 512


class ImageError(ValueError):
    """A file that cannot be used as a picture."""


def open_image(path: Path) -> Image.Image:
    """The upright sRGB picture: EXIF orientation and colour profile applied, transparency on white, first frame of an
    animation.

    Raises ImageError naming the file, for an empty, truncated, unknown or absurdly large one, for a dangling link, and
    for what bears a picture's name and is none.
    """
    head = _head(path)
    plugin = plugin_of(head)
    if plugin is not None and not plugin.installed:
        raise ImageError(f"{path} is a {plugin.name} picture; {EXTRA} reads them, or convert it to PNG or JPEG")
    try:
        formats = (*FORMATS, plugin.register()) if plugin else FORMATS
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats) as image:
                image.load()
                return to_srgb(ImageOps.exif_transpose(eight_bits(image)), path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise ImageError(f"{path} has more than {limit} megapixels; save it smaller") from None
    except UnidentifiedImageError:
        why = impostor(head) or "is no picture that Pillow can read; convert it to PNG or JPEG or remove it"
        raise ImageError(f"{path} {why}") from None
    except DepthError as error:
        raise ImageError(f"{path} {error}") from None
    except Exception as error:  # the decoders raise whatever a damaged file leads them to
        reason = plugin.name if plugin else " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path} is corrupt or cut short ({reason}); copy it again or remove it") from None


def _head(path: Path) -> bytes:
    """The file's first bytes. Raises ImageError if there are none to be had."""
    if dangling(path):
        raise ImageError(link_problem(path))
    if not path.is_file():  # a pipe would wait for ever
        raise ImageError(f"{path} is no ordinary file; remove it" if path.exists() else f"{path} does not exist")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror})") from None
    if not head:
        raise ImageError(f"{path} is empty (0 bytes); copy it again or remove it")
    return head


def to_float(image: Image.Image) -> np.ndarray:
    """float32 (h, w, 3) in [-1, 1]."""
    return np.asarray(image, np.float32) / 127.5 - 1.0


def load_image(path: Path, size: int) -> np.ndarray:
    """The picture's centre square, float32 (size, size, 3) in [-1, 1]."""
    return to_float(ImageOps.fit(open_image(path), (size, size), Image.Resampling.LANCZOS))
