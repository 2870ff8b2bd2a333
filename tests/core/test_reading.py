"""Text of any editor is read, and bytes that would have to be guessed are named."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from cns_jax.core import reading
from cns_jax.core.reading import TextError, read_text

TEXT = "a café\nзима 猫 🐱\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode("utf-16"),
    ],
)
def test_every_form_reads_alike(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "1.txt").write_bytes(data)
    assert read_text(tmp_path / "1.txt") == TEXT


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("one\nthe mug’s".encode("cp1252"), "line 2: byte 0x92 at letter 8 is not UTF-8; save it as UTF-8 (as Windows"),
        ("é\nünd".encode("latin-1"), "line 1: byte 0xe9 at letter 1 is not UTF-8"),
        ("猫".encode("shift-jis"), "line 1: byte 0x94 at letter 1 is not UTF-8"),
        ("cat".encode("utf-16-le"), "line 1: a zero byte, so it is no text, or UTF-16 without a mark"),
        ("a\ncat".encode("utf-32"), "line 1: a zero byte"),
        (codecs.BOM_UTF16_LE + b"a\0\n\0c", "line 2: byte 0x63 at letter 1 is not UTF-16"),
        (codecs.BOM_UTF16_LE + b"\0\xd8a\0", "line 1: byte 0x00 at letter 1 is not UTF-16"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "line 1: byte 0xff"),
    ],
)
def test_other_bytes_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "1.txt"
    file.write_bytes(data)
    with pytest.raises(TextError) as caught:
        read_text(file)
    assert str(caught.value).startswith(f"{file}, {said}") and "save it as UTF-8" in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST", 10)
    (tmp_path / "1.txt").write_text("eleven byte")
    with pytest.raises(TextError, match="more than text can have here"):
        read_text(tmp_path / "1.txt")
