"""Tensors of safetensors files by key. A file is mapped only while one of its tensors is read, or some small ones.

A mapping kept open would count every page read so far as memory: twice the weights at the end of a load.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from cns_jax.weights.header import Mended, NotWhole, mended

_MAPPED = 2**23  # numbers that are read by one opening of a file


class WeightsMismatch(ValueError):
    """A file's tensors are not those of the model that its config describes."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies. rows: which of the stored tensor's rows it is (None: all of them)."""

    file: Path
    key: str
    shape: tuple[int, ...]
    rows: slice | None = None

    def raw(self) -> np.ndarray:
        """The tensor in the dtype that is stored."""
        with _opened(self.file) as file:
            return self._of(file)

    def _of(self, opened: Any) -> np.ndarray:
        return opened.get_tensor(self.key) if self.rows is None else opened.get_slice(self.key)[self.rows]


def read_each(tensors: Iterable[Stored]) -> Iterator[np.ndarray]:
    """The tensors one by one; floats of any width as float32, which holds 16-bit floats exactly.

    Opening a file parses its header, half a millisecond and more, so small neighbours are read by one opening.
    """
    for neighbours in _neighbours(tensors):
        with _opened(neighbours[0].file) as file:
            for stored in neighbours:
                tensor = stored._of(file)
                yield tensor if np.issubdtype(tensor.dtype, np.integer) else np.asarray(tensor, np.float32)


def _neighbours(tensors: Iterable[Stored]) -> Iterator[list[Stored]]:
    """Those that follow each other and lie in one file, up to `_MAPPED` numbers, or one larger tensor."""
    together, numbers = list[Stored](), 0
    for stored in tensors:
        size = math.prod(stored.shape)
        if together and (stored.file != together[0].file or numbers + size > _MAPPED):
            yield together
            together, numbers = [], 0
        together.append(stored)
        numbers += size
    if together:
        yield together


def index_file(file: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Every tensor of a safetensors file, and the file's metadata. Nothing but the header is read.

    A file whose tensors are whole is read, with a warning, though safetensors refuses it.
    Raises WeightsMismatch if the file is missing, cut short, of float8, or something else: then it says what.
    """
    with _opened(file) as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
        eighths = [key for key, tensor in slices.items() if tensor.get_dtype().startswith("F8")]
        if eighths:
            raise WeightsMismatch(
                f"{file} holds float8 weights ({eighths[0]} and {len(eighths) - 1} more); take the float16 or the "
                "float32 file"
            )
        stored = {key: Stored(file, key, tuple(tensor.get_shape())) for key, tensor in slices.items()}
        return stored, dict(opened.metadata() or {})


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    if not file.is_file():
        raise WeightsMismatch(f"{file} does not exist; the weights of this part belong there")
    try:
        opened = safe_open(file, framework="np")
    except SafetensorError:
        yield _despite(file)
        return
    try:
        with opened:
            yield opened
    except SafetensorError as error:  # the file was replaced meanwhile
        raise WeightsMismatch(f"{file} cannot be read any more ({error}); download or copy it again") from None


def _despite(file: Path) -> Mended:
    """What can be read of a file that safetensors refuses; raises WeightsMismatch naming what the file is instead."""
    try:
        return mended(file)
    except NotWhole as found:
        raise WeightsMismatch(f"{file} is not a whole safetensors file: {found}") from None
