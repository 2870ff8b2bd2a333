"""A leaf of the parameters <-> a tensor of a PyTorch file: by the leaf's last name and its rank, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cns_jax.core.casting import cast, in_c_order

_SUFFIX = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def file_key(name: str) -> str:
    """The file key of a leaf's dotted name: "conv_in.kernel" -> "conv_in.weight"."""
    stem, _, last = name.rpartition(".")
    return ".".join(filter(None, (stem, _SUFFIX.get(last, last))))


def to_file(name: str, leaf: np.ndarray) -> np.ndarray:
    """A leaf in PyTorch's layout: linear (in, out) -> (out, in), convolution HWIO -> OIHW, others unchanged.

    A view: no copy of what `from_file` returned, and in C order then.
    """
    if not name.endswith("kernel"):
        return leaf
    return leaf.transpose(_order(leaf.ndim, (1, 0), (3, 2, 0, 1)))


def from_file(name: str, tensor: np.ndarray) -> np.ndarray:
    """The inverse of `to_file`, a view too."""
    if not name.endswith("kernel"):
        return tensor
    return tensor.transpose(_order(tensor.ndim, (1, 0), (2, 3, 1, 0)))


def file_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in the file of a leaf of `shape`."""
    if not name.endswith("kernel"):
        return shape
    return tuple(shape[i] for i in _order(len(shape), (1, 0), (3, 2, 0, 1)))


def _order(rank: int, linear: tuple[int, ...], convolution: tuple[int, ...]) -> tuple[int, ...]:
    orders = {2: linear, 4: convolution}
    if rank not in orders:
        raise ValueError(f"a kernel of rank {rank} has no layout in PyTorch here (linear: 2, convolution: 4)")
    return orders[rank]


def tensors(flat: Mapping[str, Any], dtype: Any) -> dict[str, np.ndarray]:
    """File key -> tensor in C order, for all leaves of a flattened tree, in `dtype`."""
    leaves = {file_key(name): in_c_order(to_file(name, np.asarray(leaf))) for name, leaf in flat.items()}
    return dict(zip(leaves, cast(list(leaves.values()), dtype), strict=True))
