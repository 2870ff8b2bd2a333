"""A leaf of the parameters <-> a tensor of a PyTorch file: by the leaf's last name and its rank, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cns_jax.core.casting import cast
from cns_jax.core.threads import in_threads

_JOINED, _CACHED, _LARGE = 2**16, 2**18, 2**20  # elements: cast in one piece; within a core's cache; a thread's work
_STRIP = 16
_SUFFIX = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def file_key(name: str) -> str:
    """The file key of a leaf's dotted name: "conv_in.kernel" -> "conv_in.weight"."""
    stem, _, last = name.rpartition(".")
    return ".".join(filter(None, (stem, _SUFFIX.get(last, last))))


def to_file(name: str, leaf: np.ndarray) -> np.ndarray:
    """PyTorch's layout of a leaf: linear (in, out) -> (out, in), convolution HWIO -> OIHW, others unchanged."""
    if not name.endswith("kernel"):
        return leaf
    return _copied(leaf.transpose(_order(leaf.ndim, (1, 0), (3, 2, 0, 1))), 1)


def from_file(name: str, tensor: np.ndarray) -> np.ndarray:
    """The inverse of `to_file`."""
    if not name.endswith("kernel"):
        return tensor
    return _copied(tensor.transpose(_order(tensor.ndim, (1, 0), (2, 3, 1, 0))), -1)


def file_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file of a leaf of `shape`."""
    if not name.endswith("kernel"):
        return shape
    return tuple(shape[i] for i in _order(len(shape), (1, 0), (3, 2, 0, 1)))


def _copied(view: np.ndarray, axis: int) -> np.ndarray:
    """In C order: of a large array 16 rows along `axis` at a time, the one that its memory has outermost. NumPy
    itself copies a column at a time, and has lost a row's cache line when it comes to the next one. It moves 16-bit
    floats at half the speed of integers."""
    bits = view.view(f"u{view.itemsize}")
    if view.size <= _CACHED:
        return np.asarray(bits, order="C").view(view.dtype)
    copy = np.empty(bits.shape, bits.dtype)
    rows, to = np.moveaxis(bits, axis, 0), np.moveaxis(copy, axis, 0)
    for start in range(0, len(rows), _STRIP):
        to[start : start + _STRIP] = rows[start : start + _STRIP]
    return copy.view(view.dtype)


def _order(rank: int, linear: tuple[int, ...], convolution: tuple[int, ...]) -> tuple[int, ...]:
    orders = {2: linear, 4: convolution}
    if rank not in orders:
        raise ValueError(f"a kernel of rank {rank} has no layout in PyTorch here (linear: 2, convolution: 4)")
    return orders[rank]


def tensors(flat: Mapping[str, Any], dtype: Any) -> dict[str, np.ndarray]:
    """File key -> tensor, for all leaves of a flattened tree, in `dtype`."""

    def one(name: str) -> np.ndarray:
        return to_file(name, cast(np.asarray(flat[name]), dtype))

    large = [name for name, leaf in flat.items() if leaf.size > _LARGE]
    found = dict(zip(large, in_threads(one, large), strict=True))
    small = {name: np.asarray(leaf) for name, leaf in flat.items() if leaf.size <= _JOINED}
    found |= {name: to_file(name, leaf) for name, leaf in _cast_together(small, dtype).items()}
    return {file_key(name): found[name] if name in found else one(name) for name in flat}


def _cast_together(leaves: Mapping[str, np.ndarray], dtype: Any) -> dict[str, np.ndarray]:
    """All in one piece, which takes half the time of hundreds of small ones."""
    if not leaves:
        return {}
    joined = cast(np.concatenate([leaf.ravel() for leaf in leaves.values()]), dtype)
    parts = np.split(joined, np.cumsum([leaf.size for leaf in leaves.values()])[:-1])
    return {name: part.reshape(leaf.shape) for (name, leaf), part in zip(leaves.items(), parts, strict=True)}
