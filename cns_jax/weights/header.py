"""safetensors files that the library refuses though their tensors are whole: bytes behind the last tensor, and metadata
that are no strings. Everything else that is wrong with a file is named."""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from cns_jax.weights.diagnosis import AGAIN, what_is

log = logging.getLogger(__name__)

_LARGEST = 2**25  # bytes of a header that is read here; Stable Diffusion's have 2**18
_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
_FAULTY = "a faulty program wrote it; take the file from where it was made"


class NotWhole(ValueError):
    """A file whose tensors cannot be read; the message says what is wrong and what to do, without the file's name."""


@dataclass(frozen=True)
class Slice:
    """A tensor of an opened file: what safetensors' slices do."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def get_dtype(self) -> str:
        """Its name in the file."""
        return self.dtype

    def get_shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.whole()[rows]

    def whole(self) -> np.ndarray:
        """The tensor, read from the file."""
        kind = np.dtype(_DTYPES[self.dtype])
        found = np.fromfile(self.file, kind, math.prod(self.shape), offset=self.start)
        return found.reshape(self.shape)


@dataclass(frozen=True)
class Mended:
    """A file as safetensors' `safe_open` gives it."""

    slices: Mapping[str, Slice]
    said: Mapping[str, str]

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self.slices)

    def metadata(self) -> Mapping[str, str]:
        """Its metadata, all as strings."""
        return self.said

    def get_slice(self, key: str) -> Slice:
        """A tensor that is not read yet."""
        return self.slices[key]

    def get_tensor(self, key: str) -> np.ndarray:
        """A tensor."""
        return self.slices[key].whole()


def mended(file: Path) -> Mended:
    """The tensors of a file that safetensors refuses, with one warning; only the header is read.

    Raises NotWhole for what is no safetensors file or holds less than its header promises, OSError.
    """
    state = file.stat()
    return _mended(file, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=32)  # a model's files are opened once a tensor, and warned of once
def _mended(file: Path, size: int, _: int) -> Mended:
    header, first = _header(file, size)
    said = header.pop("__metadata__", None)
    slices, ends = dict[str, Slice](), list[tuple[int, int, str]]()
    for key, entry in header.items():
        tensor, end = _slice(file, first, key, entry)
        slices[key] = tensor
        if end > tensor.start:
            ends.append((tensor.start, end, key))
    last = first
    for (start, end, key), before in zip(sorted(ends), ["", *(k for _, _, k in sorted(ends))], strict=False):
        if start < last:
            raise NotWhole(f"{before} and {key} lie on each other in it; {_FAULTY}")
        if start > last:
            raise NotWhole(f"there are {start - last} bytes before {key} that belong to no tensor; {_FAULTY}")
        last = end
    if last > size:
        raise NotWhole(f"it is cut short: {size} of {last} bytes are there; {AGAIN}")
    odd = [f"{size - last} bytes behind its last tensor"] if last < size else []
    metadata = said if isinstance(said, dict) else {}
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    if said is not None and plain != said:
        odd.append("metadata that are no text")
    log.warning("%s holds %s; its tensors are whole and are read", file, " and ".join(odd) or "an unusual header")
    return Mended(slices, plain)


def _header(file: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header's JSON, and where the tensors begin."""
    known = what_is(file)
    if known:
        raise NotWhole(f"it is {known}")
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        start = opened.read(1)
        if size < 8 or (start and start != b"{"):
            raise NotWhole(f"it begins like none; {AGAIN}, or take the file from where it was made")
        if length > size - 8:
            raise NotWhole(f"it is cut short: its header has {length} bytes, the file {size}; {AGAIN}")
        if length > _LARGEST:
            raise NotWhole(f"its header is said to have {length} bytes, more than any model's; {_FAULTY}")
        text = start + opened.read(length - 1)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:  # broken bytes are a ValueError, too
        raise NotWhole(f"its header is damaged ({str(error)[:100]}); {AGAIN}") from None
    if not isinstance(header, dict):
        raise NotWhole(f"its header is a {type(header).__name__}; {_FAULTY}")
    return header, 8 + length


def _slice(file: Path, first: int, key: str, entry: Any) -> tuple[Slice, int]:
    """One tensor of the header, and where it ends."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sound = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise NotWhole(f"its header describes {key} as {str(entry)[:100]}, which is no tensor; {_FAULTY}")
    if dtype not in _DTYPES:
        raise NotWhole(f"{key} is of the dtype {dtype!r}; take the float16 or the float32 file")
    wanted = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if end - begin != wanted:
        raise NotWhole(
            f"{key} has {end - begin} bytes in it, its shape {list(shape)} as {dtype} needs {wanted}; {_FAULTY}"
        )
    return Slice(file, dtype, shape, first + begin), first + end
