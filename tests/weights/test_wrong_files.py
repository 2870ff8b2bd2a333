"""Files that went wrong: what is whole is read, everything else is named for what it is."""

from __future__ import annotations

import io
import json
import logging
import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cns_jax.weights import header
from cns_jax.weights.find import read_json
from cns_jax.weights.tensors import WeightsMismatch, index_file

VALUES = np.float32([1, 2, 3, 4])
ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


def raw(file: Path, head: Any, data: bytes = VALUES.tobytes(), length: int | None = None) -> Path:
    """A file with any header, and any length that it claims."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize(
    ("metadata", "behind", "said", "read"),
    [
        ({"format": "pt"}, bytes(16), "16 bytes behind its last tensor", {"format": "pt"}),
        ({"ss_epoch": 5, "tags": ["a"], "n": None}, b"", "metadata that are no text", {"ss_epoch": "5", "n": "null"}),
        ({"ss_epoch": 5}, b"\0", "1 bytes behind its last tensor and metadata that are no text", {"ss_epoch": "5"}),
        (["a"], b"", "metadata that are no text", {}),
    ],
)
def test_whole_data_are_read_and_warned_of_once(
    file: Path, caplog: pytest.LogCaptureFixture, metadata: Any, behind: bytes, said: str, read: dict[str, str]
) -> None:
    other = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(3, 2)
    second = {"dtype": "BF16", "shape": [3, 2], "data_offsets": [16, 28]}
    nothing = {"dtype": "F16", "shape": [0, 2], "data_offsets": [28, 28]}
    head = {"__metadata__": metadata, "b": second, "a": ENTRY, "none": nothing}
    raw(file, head, VALUES.tobytes() + other.tobytes() + behind)
    with pytest.raises(Exception, match="header"):  # the library's own reader
        load_file(file)
    stored, found = index_file(file)
    for _ in range(2):
        np.testing.assert_array_equal(stored["a"].raw(), VALUES)
        np.testing.assert_array_equal(stored["b"].raw(), other)
        assert stored["none"].raw().shape == (0, 2)
    cut = header.mended(file).get_slice("b")[slice(1, 3)]
    np.testing.assert_array_equal(cut, other[1:3])
    assert cut.dtype == ml_dtypes.bfloat16 and read.items() <= found.items()
    assert caplog.messages == [f"{file} holds {said}; its tensors are whole and are read"]


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file (0 bytes): a download or copy that did not begin"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265380512\n",
            "a Git LFS pointer to the file of 4.27 GB, not the file; run git lfs install and git lfs pull",
        ),
        (b"<!doctype html><html><head><title>Sign in</title></head>", "a web page (Sign in), not weights; its address"),
        (b"\xef\xbb\xbf \n<HTML>" + b"x" * 99, "a web page, not weights"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page, not weights"),
        (b'{"error": "Repository not found"}', 'a text ({"error": "Repository not found"}), a server\'s answer'),
        (b"Access to model x/y is restricted.", "a text (Access to model x/y is restricted.), a server's answer"),
        (zipped("archive/data.pkl"), "a PyTorch pickle that was renamed"),
        (b"\x80\x02}q\x00.", "a PyTorch pickle that was renamed"),
        (zipped("model.safetensors"), "a zip archive; unpack it"),
        (b"GGUF\x03\0\0\0" + bytes(99), "a GGUF file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG picture"),
        (bytes(99), "filled with zeros from its beginning (99 bytes): a download that has not finished"),
        (b"\x01\x02\x03", "it begins like none"),
        (b"\x07" * 99, "it begins like none"),
    ],
)
def test_what_is_no_safetensors_file_is_named(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(WeightsMismatch, match=re.escape(said)) as caught:
        index_file(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


BAD_ENTRIES = [
    {"dtype": "F32", "shape": [4], "data_offsets": [0]},
    {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
    {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]},
    {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]},
    {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]},
    {"shape": [4], "data_offsets": [0, 16]},
    [1, 2],
    None,
]


@pytest.mark.parametrize(
    ("head", "length", "said"),
    [
        ({"a": ENTRY}, 2**40, "it is cut short: its header has 1099511627776 bytes, the file"),
        ({"a": ENTRY}, 2**64 - 1, "it is cut short: its header has 18446744073709551615 bytes"),
        (b'{"a": {"dtype"', None, "its header is damaged"),
        (b'{"a": ' * 100_000, None, "its header is damaged"),
        (b'{"\xff\xfe": 1}', None, "its header is damaged"),
        ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [8, 24]}}, None, "a and b lie on each other in it"),
        ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [0, 16]}}, None, "a and b lie on each other in it"),
        ({"a": {**ENTRY, "data_offsets": [16, 32]}}, None, "there are 16 bytes before a that belong to no tensor"),
        ({"a": {**ENTRY, "shape": [2**40, 2**40]}}, None, "a has 16 bytes in it, its shape [1099511627776, 10995"),
        ({"a": {**ENTRY, "shape": [2**62], "data_offsets": [0, 2**64]}}, None, "it is cut short: "),
        ({"a": {**ENTRY, "shape": [2**30], "data_offsets": [0, 2**32]}}, None, "it is cut short: "),
        ({"a": {**ENTRY, "dtype": "F4_E2M1"}}, None, "a is of the dtype 'F4_E2M1'; take the float16 or the float32"),
        *(({"a": entry}, None, "its header describes a as") for entry in BAD_ENTRIES),
    ],
)
def test_headers_that_lie_are_named(file: Path, head: Any, length: int | None, said: str) -> None:
    raw(file, head, length=length)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsMismatch, match=re.escape(said)):
            index_file(file)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_header_larger_than_any_models_is_not_read(file: Path) -> None:
    with file.open("wb") as opened:  # without a block on the disk
        opened.write((2**26).to_bytes(8, "little") + b"{")
        opened.truncate(2**26 + 100)
    with pytest.raises(WeightsMismatch, match="its header is said to have 67108864 bytes, more than any model's"):
        index_file(file)


def test_every_length_of_a_cut_file_is_named(file: Path) -> None:
    save_file({"a": VALUES, "b": np.ones((2, 3), np.float16)}, file, {"format": "pt"})
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(WeightsMismatch, match="not a whole safetensors file: it") as caught:
            index_file(file)
        assert re.search("cut short|begins like none|empty file|a text|zeros|damaged", str(caught.value)), length


def test_every_changed_byte_of_a_header_is_read_or_named(file: Path) -> None:
    """Any error but one that names the file would be a traceback."""
    save_file({"a": VALUES}, file, {"format": "pt"})
    whole = bytearray(file.read_bytes())
    for at in range(len(whole) - 16):
        for value in (0, ord('"'), ord("9"), 0xFF):
            file.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                stored, _ = index_file(file)
                assert all(where.raw().nbytes <= 16 for where in stored.values())
            except WeightsMismatch as error:
                assert str(file) in str(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf" + b'{"a": 1}', ""),
        (b"version https://git-lfs.github.com/spec/v1\nsize 12\n", "is a Git LFS pointer"),
        (b"<html><title>Sign in</title>", "is a web page (Sign in)"),
        (b"\xff\xfe{\0", "is not JSON"),
        (b'{"a": ', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"", "is an empty file"),
    ],
)
def test_configurations_that_went_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    if not said:
        assert read_json(tmp_path / "config.json") == {"a": 1}
        return
    with pytest.raises(WeightsMismatch, match=re.escape(f"config.json {said}")):
        read_json(tmp_path / "config.json")


def test_the_warning_is_of_this_package(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw(file, {"__metadata__": {"n": 1}, "a": ENTRY})
    with caplog.at_level(logging.WARNING, "cns_jax"):
        index_file(file)
    assert [record.name for record in caplog.records] == ["cns_jax.weights.header"]
