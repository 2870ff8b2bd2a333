"""The trained weights after a concept: all K/V kernels, the token rows, and the concept's packed neuron mask."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cns_jax.core.files import save_tensors
from cns_jax.core.tree import Tree, flatten, like
from cns_jax.weights.tensors import index_file

_ROWS, _MASK, _KERNEL, _MOMENT = "token_rows", "mask.", "kernel.", "moment"


class Snapshot(NamedTuple):
    """kernels: float32, as in the UNet's parameters; rows_rd: all concept rows; mask: bool, like the kernels.

    moment_dd: second moment of the text features of the concept's prompts, None in files of old versions."""

    kernels: Tree
    rows_rd: np.ndarray
    mask: Tree
    moment_dd: np.ndarray | None = None


def save_snapshot(file: Path, snapshot: Snapshot) -> None:
    """Write a safetensors file, complete or not at all. Masks are packed, 8 weights a byte."""
    tensors = {f"{_KERNEL}{k}": np.asarray(v) for k, v in flatten(snapshot.kernels).items()}
    tensors |= {f"{_MASK}{k}": np.packbits(np.asarray(v)) for k, v in flatten(snapshot.mask).items()}
    tensors[_ROWS] = np.asarray(snapshot.rows_rd)
    if snapshot.moment_dd is not None:
        tensors[_MOMENT] = np.asarray(snapshot.moment_dd, np.float32)
    save_tensors(file, tensors)


def packed_masks(files: Sequence[Path]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Of every kernel: its dotted name, how many weights it has, and the files' masks as packed bits, uint8 (files, b).

    One kernel is read at a time. Raises WeightsMismatch if a file is missing or cut short, KeyError if they are of
    different models.
    """
    indexes = [index_file(file)[0] for file in files]
    for key in [key for key in indexes[0] if key.startswith(_MASK)]:
        name = key.removeprefix(_MASK)
        yield name, int(np.prod(indexes[0][_KERNEL + name].shape)), np.stack([index[key].raw() for index in indexes])


def union_of_masks(files: Sequence[Path], kernels: Mapping[str, Any]) -> Tree:
    """The weights that any of the files' lessons selected, bool like `kernels`; raises as `packed_masks`."""
    shapes = {name: leaf.shape for name, leaf in flatten(kernels).items()}
    union = {}
    for name, size, bits in packed_masks(files):
        union[name] = np.unpackbits(np.bitwise_or.reduce(bits), count=size).astype(bool).reshape(shapes[name])
    return like(union, kernels)


def load_snapshot(file: Path, kernels: Mapping[str, Any]) -> Snapshot:
    """Read a snapshot. kernels: the base model's K/V kernels, for structure and shapes.

    Raises WeightsMismatch if the file is missing or cut short, ValueError if it belongs to a model with other kernels.
    """
    tensors = {key: where.raw() for key, where in index_file(file)[0].items()}
    shapes = {name: leaf.shape for name, leaf in flatten(kernels).items()}
    found = {k.removeprefix(_KERNEL): v for k, v in tensors.items() if k.startswith(_KERNEL)}
    if {k: v.shape for k, v in found.items()} != shapes:
        raise ValueError(f"{file} belongs to another model: its cross-attention kernels differ in name or shape")
    lengths = {f"{_MASK}{name}": (-(-math.prod(shape) // 8),) for name, shape in shapes.items()}
    wrong = [key for key, length in lengths.items() if key not in tensors or tensors[key].shape != length]
    if wrong or _ROWS not in tensors or tensors[_ROWS].ndim != 2:
        raise ValueError(f"{file} is damaged: it lacks {wrong[0] if wrong else _ROWS}, or that has another shape")
    masks = {}
    for name, shape in shapes.items():
        bits = np.unpackbits(tensors[f"{_MASK}{name}"], count=int(np.prod(shape)))
        masks[name] = bits.astype(bool).reshape(shape)
    return Snapshot(like(found, kernels), tensors[_ROWS], like(masks, kernels), tensors.get(_MOMENT))


def load_moment(file: Path) -> np.ndarray | None:
    """A snapshot's moment_dd alone; raises WeightsMismatch if the file is missing or cut short."""
    where = index_file(file)[0].get(_MOMENT)
    return None if where is None else where.raw()


def padded_rows(rows_rd: np.ndarray, count: int) -> np.ndarray:
    """Concept rows (count, d): `rows_rd` with rows of zeros behind them; as they are if there are as many already."""
    return np.pad(rows_rd, ((0, max(count - len(rows_rd), 0)), (0, 0)))
