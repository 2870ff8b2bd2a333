"""Text that people wrote, in the encodings that editors leave behind."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MOST = 64 * 10**6


class TextError(ValueError):
    """A file that is no text, or text in an encoding that must be guessed."""


def read_text(file: Path) -> str:
    """The text of a file in UTF-8 with or without a byte-order mark, or in UTF-16 with one; lines end with a newline.

    Raises TextError naming the file, the line and the byte where anything else begins, so that no letter is guessed;
    and for a file of more than 64 MB. Raises OSError if the file cannot be read.
    """
    size = file.stat().st_size
    if size > _MOST:
        raise TextError(f"{file} has {size / 1e6:.0f} MB, more than text can have here ({_MOST // 10**6} MB)")
    data = file.read_bytes()
    mark, encoding = next(((m, e) for m, e in _MARKS if data.startswith(m)), (b"", "utf-8"))
    body = data[len(mark) :]
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(_wrong_byte(file, body, error)) from None
    if "\0" in text:  # UTF-16 without a mark, UTF-32, or no text at all
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TextError(f"{file}, line {line}: a zero byte, so it is no text, or UTF-16 without a mark; {_FIX}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


_FIX = "save it as UTF-8"


def _wrong_byte(file: Path, body: bytes, error: UnicodeDecodeError) -> str:
    before = body[: error.start].decode(error.encoding)
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    where = (
        f"{file}, line {line}: byte 0x{body[error.start]:02x} at letter {column} is not {error.encoding.upper()[:6]}"
    )
    if error.encoding != "utf-8":
        return f"{where}, as the file's mark says ({error.reason}); {_FIX}"
    whole = body.split(b"\n")[line - 1].decode("cp1252", "replace").strip()
    shown = whole if len(whole) <= 60 else whole[:60] + "..."
    return f"{where}; {_FIX} (as Windows-1252 the line reads {shown!r})"
