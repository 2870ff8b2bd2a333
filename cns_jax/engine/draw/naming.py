"""Names of the pictures that `generate` writes: readable, numbered up, and never those of pictures that are there."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from anyascii import anyascii

_LETTERS = 60


def slug(text: str) -> str:
    """A prompt as a part of a file name: a-z, 0-9 and _ alone, other scripts transliterated; never empty."""
    return re.sub(r"[^a-z0-9]+", "_", anyascii(text).lower()).strip("_")[:_LETTERS].strip("_") or "picture"


class Numbered:
    """Files NAME_00000.png, NAME_00001.png, ... of a folder, for any names.

    overwrite: start from 0 and replace what is there; else after the largest number there. A file is whole or not
    there, and two processes that number up in one folder never get the same one.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.overwrite = folder, overwrite
        self._next = dict[str, int]()

    def write(self, name: str, data: bytes) -> Path:
        """Write the next file of this name; returns its path."""
        temporary = self.folder / f".{uuid.uuid4().hex[:12]}.partial"
        try:
            temporary.write_bytes(data)
            while True:
                number = self._next[name] if name in self._next else self._first(name)
                self._next[name] = number + 1
                file = self.folder / f"{name}_{number:05d}.png"
                if self.overwrite:
                    temporary.replace(file)
                    return file
                if _moved(temporary, file):
                    return file
        finally:
            temporary.unlink(missing_ok=True)

    def _first(self, name: str) -> int:
        if self.overwrite:
            return 0
        form = re.compile(re.escape(name) + r"_(\d{5,})\.png")
        taken = [int(found[1]) for entry in os.listdir(self.folder) if (found := form.fullmatch(entry))]
        return max(taken, default=-1) + 1


def _moved(temporary: Path, file: Path) -> bool:
    """Give a file its name, unless one is there already."""
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: claim the name, then fill it
        try:
            file.open("xb").close()
        except FileExistsError:
            return False
        temporary.replace(file)
    return True
