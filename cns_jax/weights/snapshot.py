"""The trained weights after a concept: all K/V kernels, the token rows, and the concept's packed neuron mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cns_jax.core.tree import Tree, flatten, like
from cns_jax.weights.tensors import index_file, write_tensors

_ROWS = "token_rows"


class Snapshot(NamedTuple):
    """kernels: float32, as in the UNet's parameters; rows_rd: all concept rows; mask: bool, like the kernels."""

    kernels: Tree
    rows_rd: np.ndarray
    mask: Tree


def save_snapshot(file: Path, snapshot: Snapshot) -> None:
    """Write a safetensors file, complete or not at all. Masks are packed, 8 weights a byte."""
    tensors = {f"kernel.{k}": np.asarray(v) for k, v in flatten(snapshot.kernels).items()}
    tensors |= {f"mask.{k}": np.packbits(np.asarray(v)) for k, v in flatten(snapshot.mask).items()}
    tensors[_ROWS] = np.asarray(snapshot.rows_rd)
    write_tensors(file, tensors, {})


def load_snapshot(file: Path, kernels: Mapping[str, Any]) -> Snapshot:
    """Read a snapshot. kernels: the base model's K/V kernels, for structure and shapes.

    Raises WeightsMismatch if the file is missing or cut short, ValueError if it belongs to a model with other kernels.
    """
    tensors = {key: where.raw() for key, where in index_file(file)[0].items()}
    shapes = {name: leaf.shape for name, leaf in flatten(kernels).items()}
    found = {k.removeprefix("kernel."): v for k, v in tensors.items() if k.startswith("kernel.")}
    if {k: v.shape for k, v in found.items()} != shapes:
        raise ValueError(f"{file} belongs to another model: its cross-attention kernels differ in name or shape")
    masks = {}
    for name, shape in shapes.items():
        bits = np.unpackbits(tensors[f"mask.{name}"], count=int(np.prod(shape)))
        masks[name] = bits.astype(bool).reshape(shape)
    return Snapshot(like(found, kernels), tensors[_ROWS], like(masks, kernels))
