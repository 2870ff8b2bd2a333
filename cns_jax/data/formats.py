"""Which files are pictures: by name, and by what their first bytes say."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cns_jax.data.stray import is_stray

SUFFIXES = tuple(".png .apng .jpg .jpeg .jpe .jfif .webp .avif .bmp .dib .gif .tif .tiff .jp2".split())

# never EPS, for which Pillow calls Ghostscript, nor what only resembles a picture
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "JPEG2000", "PPM", "TGA", "ICO")

MASKS = (".mask", "-masklabel")
"""How the names of loss masks end: 1.mask.png; OneTrainer's 1-masklabel.png."""

EXTRA = "pip install '.[photos]'"
"""What installs the plugins of `PLUGINS`."""


@dataclass(frozen=True)
class Plugin:
    """A format that Pillow reads with a package of the extra `photos`, and calls `format`."""

    name: str
    format: str
    module: str
    suffixes: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether the package is there; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    def register(self) -> str:
        """Teach Pillow the format; returns Pillow's name of it."""
        _register(self.module)
        return self.format


@cache
def _register(module: str) -> None:
    opener = getattr(importlib.import_module(module), "register_heif_opener", None)
    if opener is not None:  # the other package registers when it is imported
        opener()


HEIC = Plugin("HEIC", "HEIF", "pi_heif", (".heic", ".heif", ".hif"))
JXL = Plugin("JPEG XL", "JXL", "pillow_jxl", (".jxl",))
PLUGINS = (HEIC, JXL)

# pictures to a person, which nothing here reads
OTHERS = frozenset(
    ".psd .psb .xcf .kra .svg .ai .eps .pdf .exr .hdr .ico .tga .ppm .pgm .pbm .jxr .wdp .raw .dng .cr2 .cr3 .nef .arw "
    ".orf .rw2 .raf .pef .srw .heics .avifs".split()
)

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of a user's picture that can be read here, not of a picture's loss mask."""
    return _is_image(path) and not is_mask(path)


def is_mask(path: Path) -> bool:
    """Whether a file's name is that of a loss mask, which is no training picture."""
    return _is_image(path) and path.stem.lower().endswith(MASKS)


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    known = suffix in SUFFIXES or any(suffix in p.suffixes and p.installed for p in PLUGINS)
    return known and not is_stray(path)


def plugin_of(head: bytes) -> Plugin | None:
    """The plugin that reads a file with these first bytes, whatever its name."""
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return JXL
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and b"avif" not in head[8:64]:
        return HEIC
    return None


def impostor(head: bytes) -> str | None:
    """What a file with these first bytes is if it is surely no picture, and what to do; else None."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the picture itself; run  git lfs pull  in its repository"
    if b"/annex/objects/" in text[:64]:
        return "is a git-annex pointer, not the picture itself; run  git annex get  in its repository"
    if b"<svg" in text:
        return "is an SVG drawing; export it as PNG"
    if re.match(rb"<(!doctype html|html|head|body|script|meta|\?xml)", text):
        return "is a web page, perhaps one that asks to log in; download the picture again, logged in"
    if text.startswith((b"%pdf", b"%!ps")):
        return "is a document, not a picture; export its pages as PNG"
    if head.startswith((b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b")):
        return "is an archive; unpack it"
    if head[4:12] in (b"ftypisom", b"ftypmp42", b"ftypqt  ", b"ftypmp41", b"ftypM4V ") or head[8:12] == b"AVI ":
        return "is a video; save single pictures of it"
    if head and not head.strip(b"\0"):
        return "holds zero bytes only, as after a broken copy; copy it again or remove it"
    return None
