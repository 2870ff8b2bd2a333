"""What a file is that should have been weights, told from its first bytes, and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

_LOOKED = 4096  # bytes
_FILES = {  # first bytes -> what such a file is
    b"GGUF": "a GGUF file of quantized weights; take the float16 or float32 safetensors",
    b"\x89HDF": "an HDF5 file (Keras); take the safetensors",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"\x89PNG": "a PNG picture, a preview perhaps; take the weights beside it",
    b"\xff\xd8\xff": "a JPEG picture, a preview perhaps; take the weights beside it",
    b"RIFF": "a WebP picture, a preview perhaps; take the weights beside it",
}
AGAIN = "download or copy it again"
"""What to do with a file that is not whole."""


def what_is(file: Path, text: bool = False) -> str:
    """What `file` is instead of safetensors, with what to do: "a web page (Sign in); ...". Empty if nothing tells.

    text: whether it should be a text, so that being one says nothing. Reads the first bytes only. Raises OSError.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(_LOOKED)
    if not start:
        return f"an empty file (0 bytes): a download or copy that did not begin, or a full disk; {AGAIN}"
    if start.startswith(b"version https://git-lfs"):
        found = re.search(rb"size (\d+)", start)
        held = f" of {int(found[1]) / 1e9:.2f} GB" if found and len(found[1]) < 16 else ""
        return (
            f"a Git LFS pointer to the file{held}, not the file; run git lfs install and git lfs pull in its "
            "repository, or download the file itself (hf download)"
        )
    if start.startswith(b"PK\x03\x04"):
        # torch.save writes a zip with data.pkl as its first entry
        return _pickle(file) if b"data.pkl" in start[:200] else "a zip archive; unpack it"
    if re.match(rb"\x80[\x02-\x05]", start):
        return _pickle(file)
    for magic, kind in _FILES.items():
        if start.startswith(magic):
            return kind
    words = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if words.startswith(b"<"):
        found = re.search(rb"<title[^>]*>\s*(.{1,80}?)\s*</title", start, re.IGNORECASE | re.DOTALL)
        title = f" ({found[1].decode(errors='replace')})" if found else ""
        return (
            f"a web page{title}, not weights; its address needs a login or leads to the page about the file: log in "
            "and download the file itself (hf auth login, then hf download)"
        )
    if not any(start):
        return f"filled with zeros from its beginning ({size} bytes): a download that has not finished; {AGAIN}"
    if words and not text and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in words):
        said = " ".join(words[:80].decode().split())
        return f"a text ({said}), a server's answer instead of the weights perhaps; {AGAIN}"
    return ""


def _pickle(file: Path) -> str:
    return (
        "a PyTorch pickle that was renamed, which may run any code when it is opened; only safetensors are read. Take "
        f"the model's .safetensors, or rename the file to {file.stem}.ckpt and give that: the command that converts it "
        "is then told"
    )
