"""Folders of pictures and captions as nobody should have them: each is read, or told in DataError's lines."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cns_jax.data.folder import DataError, discover, read_concepts
from cns_jax.data.images import ImageError, open_image

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIX = {"JPEG": "jpg", "TIFF": "tif"}


def picture(mode: str, form: str, side: int = 9, frames: int = 1) -> bytes:
    """A picture's file; empty where the format has no such mode."""
    rng = np.random.default_rng(side)
    image = Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8))
    try:
        if mode in ("I", "I;16"):
            image = Image.fromarray(rng.integers(0, 65535, (side, side)).astype(np.uint16 if mode[1:] else np.int32))
        elif mode == "F":
            image = Image.fromarray(rng.random((side, side), np.float32))
        else:
            image = image.convert(mode)
        out = io.BytesIO()
        more = {"save_all": True, "append_images": [image] * (frames - 1)} if frames > 1 else {}
        image.save(out, form, **more)
    except (OSError, ValueError, KeyError):
        return b""
    return out.getvalue()


def opened(data: bytes, name: str) -> None:
    """Read as a picture, or refused by name."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / name
        file.write_bytes(data)
        try:
            image = open_image(file)
        except ImageError as error:
            assert str(file) in str(error)
        else:
            assert image.mode == "RGB" and min(image.size) > 0


@given(
    st.sampled_from(MODES),
    st.sampled_from(FORMATS),
    st.integers(1, 40),
    st.integers(1, 3),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
)
def test_pictures_cut_and_changed(
    mode: str, form: str, side: int, frames: int, kept: float, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(picture(mode, form, side, frames))
    data = data[: round(len(data) * (kept if kept < 0.9 else 1))]
    for at, value in changes:
        if data:
            data[int(at * len(data))] = value
    opened(bytes(data), f"x.{SUFFIX.get(form, form.lower())}")


@given(st.binary(max_size=200), st.sampled_from(("png", "jpg", "webp", "gif", "bmp", "tif", "avif", "jfif")))
@example(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "png")
@example(b"<!DOCTYPE html><html><body>log in</body></html>", "png")
@example(b"P6 1 1 255\n\0\0\0", "png")  # another format than the name says
def test_bytes_that_are_no_picture(data: bytes, suffix: str) -> None:
    opened(data, f"x.{suffix}")


def bomb(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (0, 5)])
def test_a_picture_of_a_huge_declared_size(size: tuple[int, int]) -> None:
    opened(bomb(*size), "bomb.png")


NAMES = st.one_of(
    st.sampled_from(
        ["-rf", "a b", "🐱", "мой_пёс", "猫", "10_sks dog", "..b", "a'b", 'a"b', "x" * 120, "%s", "con", "~"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\0"), min_size=1, max_size=20),
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


def _picture(file: Path) -> None:
    file.with_name(file.name + ".png").write_bytes(picture("RGB", "PNG"))


def _broken(file: Path) -> None:
    file.with_name(file.name + ".png").write_bytes(picture("RGB", "PNG")[:40])


def _caption(data: bytes) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        _picture(file)
        file.with_name(file.name + ".txt").write_bytes(data)

    return write


def _metadata(data: bytes) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        _picture(file)
        (file.parent / "metadata.jsonl").write_bytes(data)

    return write


def _toml(data: bytes) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        _picture(file)
        (file.parent / "concept.toml").write_bytes(data)

    return write


def _dangling(file: Path) -> None:
    os.symlink("nowhere", file.with_name(file.name + ".png"))


def _loop(file: Path) -> None:
    os.symlink(file.parent, file.with_name(file.name + ".png"), target_is_directory=True)


def _self(file: Path) -> None:
    os.symlink(file.name + ".png", file.with_name(file.name + ".png"))


def _folder(file: Path) -> None:
    file.with_name(file.name + ".png").mkdir()


def _nothing(file: Path) -> None:
    file.with_name(file.name + ".png").touch()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(lambda name, text: __import__("json").dumps({"file_name": name, "text": text}).encode(), JSON, JSON),
    ),
    max_size=4,
).map(b"\n".join)
FILES = st.one_of(
    st.sampled_from([_picture, _broken, _dangling, _loop, _self, _folder, _nothing]),
    st.builds(_caption, st.binary(max_size=40)),
    st.builds(_metadata, LINES),
    st.builds(
        _toml, st.binary(max_size=40) | st.sampled_from([b"steps = -1", b'kind = "x"', b"token = 3", b"a.b = 1"])
    ),
)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, FILES, max_size=3), max_size=3))
@example({"cat": {"1": _caption(b"\xff\xfe\x00\xd8")}})  # a surrogate alone
@example({"cat": {"1": _metadata(b'{"file_name": "1.png", "text": NaN}')}})
@example({"cat": {"1": _metadata(b"[" * 100_000)}})  # deeper than Python's stack
@example({"cat": {"1": _toml(b"a = " + b"[" * 20_000)}})
def test_folders_of_all_kinds(tree: dict[str, dict[str, Callable[[Path], None]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(folder)
        for name, files in tree.items():
            (root / name).mkdir()
            for file, write in files.items():
                write(root / name / file)
        before = sorted(root.rglob("*"))
        try:
            concepts = read_concepts(root, discover(root))
        except DataError as error:
            assert str(error)
        else:
            tokens = [concept.token for concept in concepts]
            assert len(set(tokens)) == len(tokens)
            assert all(concept.image_paths for concept in concepts)
            assert all(caption is None or isinstance(caption, str) for c in concepts for caption in c.captions)
        assert sorted(root.rglob("*")) == before
