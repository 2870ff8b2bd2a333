"""Files that are whole or not there, whenever the process dies, and arrays that are made once and kept in them."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file


class FileError(ValueError):
    """A file does not hold what it should; the message names it."""


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises FileError if it holds anything else, and FileNotFoundError without it."""
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:  # of bytes that are no text and of endless numbers, too
        told = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "no text"
        raise FileError(f"{file} is not JSON ({told}); was it cut short or changed by hand?") from None
    if not isinstance(value, dict):
        raise FileError(f"{file} holds a JSON {type(value).__name__}; an object is expected")
    return value


def is_file_name(name: str) -> bool:
    """Whether a file or folder can be called so and then lies where it is put: neither empty nor a path."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def json_in(file: Path) -> dict[str, Any]:
    """The object in a JSON file that may be absent, cut short or anything else; it is empty then."""
    try:
        return read_json(file)
    except (OSError, FileError):
        return {}


def require_keys(value: object, keys: Mapping[str, type], where: str) -> None:
    """Raise FileError naming `where` unless `value` is a mapping whose `keys` have values of these types."""
    if not isinstance(value, Mapping):
        raise FileError(f"{where} is a {type(value).__name__}; an object is expected")
    for key, kind in keys.items():
        if not isinstance(value.get(key), kind):
            found = f"is a {type(value[key]).__name__}" if key in value else "is missing"
            raise FileError(f"{where}: {key!r} {found}; {kind.__name__} is expected")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to; it takes the file's place when the block ends, and is deleted on an error.

    Folders above are made. Runs that share a cache may write the same file at once: each has a path of its own.
    The file's mode follows the umask, whatever wrote it and whatever was there before: safetensors makes files that
    nobody but their owner reads.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.stem}.{uuid.uuid4().hex[:8]}.partial{file.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # the only way to learn the umask that no other thread notices
        yield temporary
        temporary.chmod(mode)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file, complete or not at all; returns its path. Raises OSError where it cannot be written."""
    arrays = {key: np.asarray(value, order="C") for key, value in tensors.items()}
    with replacing(file) as temporary:
        try:
            save_file(arrays, temporary, None if metadata is None else dict(metadata))
        except SafetensorError as error:  # of a full disk, too
            raise OSError(f"{file} cannot be written ({error})") from None
    return file


def copy_folder(source: Path, target: Path) -> None:
    """Copy what lies in the folder `source`; modes follow the umask: the copy of a read-only folder can be deleted."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            copy_folder(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)


def digest(file: Path) -> str:
    """SHA-256 of a file's bytes, first 16 hex digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def name_of(parts: tuple[object, ...]) -> str:
    """24 hex digits that name what depends on `parts`, by their repr."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def kept_array(file: Path, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array `name` of a safetensors file; where there is no such file, or a damaged one, it is made and kept."""
    try:
        return load_file(file)[name]
    except (FileNotFoundError, SafetensorError, KeyError):
        array = make()
        save_tensors(file, {name: array})
        return array
