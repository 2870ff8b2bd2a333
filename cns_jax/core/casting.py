"""Arrays on the host in another dtype or another order of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from cns_jax.core.threads import in_threads
from cns_jax.core.xla.compiling import jit

_SMALL, _PIECE = 2**18, 2**19  # elements of an array that is cast with others, and of them together
_BLOCKS = (2**20, 2**16)  # elements: a program each, for arrays of any size; the first are worth a thread
_ALIGNMENT = 16  # elements: where XLA reads an array without copying it
_CACHED, _STRIP = 2**18, 16  # elements within a core's cache; rows


@jit()
def _half(block: ArrayLike) -> jax.Array:
    return jnp.asarray(block, jnp.float16)


def cast(arrays: Sequence[np.ndarray], dtype: Any) -> list[np.ndarray]:
    """Each of `arrays`, which are in C order, in `dtype`, rounded to the nearest; those that are, themselves.

    NumPy takes float32 to float16 at 0.4 G/s a core, XLA at 4: on a CPU that is its work. Hundreds of small arrays are
    cast in a few pieces, whose memory they share.
    """
    if np.dtype(dtype) != np.float16 or jax.default_backend() != "cpu":
        return in_threads(lambda array: array.astype(dtype, copy=False), arrays)
    found = {i: array.astype(dtype, copy=False) for i, array in enumerate(arrays) if array.dtype != np.float32}
    pieces = _pieces({i: array.size for i, array in enumerate(arrays) if i not in found})
    halves = _to_half([_joined([arrays[i] for i in piece]) for piece in pieces])
    for piece, half in zip(pieces, halves, strict=True):
        start = 0
        for i in piece:
            found[i] = half[start : start + arrays[i].size].reshape(arrays[i].shape)
            start += arrays[i].size
    return [found[i] for i in range(len(arrays))]


def _pieces(sizes: Mapping[int, int]) -> list[list[int]]:
    """What is cast together."""
    pieces = [[i] for i, size in sizes.items() if size > _SMALL]
    room = 0
    for i, size in sizes.items():
        if size <= _SMALL:
            if room <= 0:
                pieces.append([])
                room = _PIECE
            pieces[-1].append(i)
            room -= size
    return pieces


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One flat array, which XLA reads where it lies."""
    if len(arrays) == 1:
        return arrays[0].reshape(-1)
    memory = np.empty(sum(array.size for array in arrays) + _ALIGNMENT, np.float32)
    flat = memory[_head(memory) :][: memory.size - _ALIGNMENT]
    return np.concatenate([array.reshape(-1) for array in arrays], out=flat)


def _head(flat: np.ndarray) -> int:
    """How many elements stand before the first that is aligned."""
    return -flat.ctypes.data // flat.itemsize % _ALIGNMENT


def _to_half(flats: Sequence[np.ndarray]) -> list[np.ndarray]:
    # all memory from this thread: that of others would be mapped anew every time (core/heap)
    found = [np.empty(flat.size, np.float16) for flat in flats]
    blocks = [block for flat, half in zip(flats, found, strict=True) for block in _blocks(flat, half)]

    def one(block: tuple[np.ndarray, np.ndarray]) -> None:
        source, half = block
        half[:] = _half(source) if source.size in _BLOCKS else source

    for block in blocks:
        if block[0].size < _BLOCKS[0]:
            one(block)
    in_threads(one, [block for block in blocks if block[0].size == _BLOCKS[0]])
    return found


def _blocks(flat: np.ndarray, half: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Parts of an array beside where they go: aligned blocks, and what stands before and behind them."""
    head = _head(flat)
    aligned = (flat.size - head) // _ALIGNMENT * _ALIGNMENT
    size = next((size for size in _BLOCKS if aligned >= size), _BLOCKS[-1])
    if aligned < size:
        yield flat, half
        return
    last = head + aligned - size
    starts = [*range(head, last, size), last]  # the last one may begin within the one before
    cuts = [slice(head), *(slice(start, start + size) for start in starts), slice(last + size, None)]
    yield from ((flat[cut], half[cut]) for cut in cuts)


def in_c_order(array: np.ndarray) -> np.ndarray:
    """`array` itself if its last axis is innermost in memory and its first outermost, else a copy that is so.

    Of a large one 16 rows at a time along the axis that is outermost now: NumPy itself copies a column at a time, and
    has lost a row's cache line when it comes to the next one. It moves 16-bit floats at half the speed of integers.
    """
    if array.flags.c_contiguous or array.size <= _CACHED:
        return np.asarray(array, order="C")
    bits = array.view(f"u{array.itemsize}")
    copy = np.empty(bits.shape, bits.dtype)
    axis = int(np.argmax(bits.strides))
    rows, to = np.moveaxis(bits, axis, 0), np.moveaxis(copy, axis, 0)
    for start in range(0, len(rows), _STRIP):
        to[start : start + _STRIP] = rows[start : start + _STRIP]
    return copy.view(array.dtype)
