"""Files that are whole or not there, whenever the process dies, and arrays that are made once and kept in them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to; it takes the file's place when the block ends, and is deleted on an error.

    Folders above are made. Runs that share a cache may write the same file at once: each has a path of its own.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.stem}.{uuid.uuid4().hex[:8]}.partial{file.suffix}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def name_of(parts: tuple[object, ...]) -> str:
    """24 hex digits that name what depends on `parts`, by their repr."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def kept_array(file: Path, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array `name` of a safetensors file; where there is no such file, or a damaged one, it is made and kept."""
    try:
        return load_file(file)[name]
    except (FileNotFoundError, SafetensorError, KeyError):
        array = make()
        with replacing(file) as temporary:
            save_file({name: array}, temporary)
        return array
