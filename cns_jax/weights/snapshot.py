"""What a run keeps after a concept: the method's memory, the concept's packed neuron mask, and its moment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cns_jax.core.files import save_tensors
from cns_jax.core.tree import Tree, flatten, like
from cns_jax.weights.tensors import index_file

_MEMORY, _MASK, _MOMENT = "memory.", "mask.", "moment"
_OLD_ROWS, _OLD_KERNEL = "token_rows", "kernel."


class Snapshot(NamedTuple):
    """memory: the method's, a pytree of arrays. mask: which of the K/V kernels' weights the lesson might change, bool
    and nested as these are; None where the method does not choose weights. moment_dd: second moment of the text
    features of the concept's prompts, None in files of old versions."""

    memory: Any
    mask: Tree | None
    moment_dd: np.ndarray | None = None


def save_snapshot(file: Path, snapshot: Snapshot) -> None:
    """Write a safetensors file, complete or not at all. What is bool is packed, 8 values a byte."""
    tensors = {f"{_MEMORY}{name}": _packed(np.asarray(leaf)) for name, leaf in _named(snapshot.memory).items()}
    if snapshot.mask is not None:
        tensors |= {f"{_MASK}{name}": _packed(np.asarray(leaf)) for name, leaf in flatten(snapshot.mask).items()}
    if snapshot.moment_dd is not None:
        tensors[_MOMENT] = np.asarray(snapshot.moment_dd, np.float32)
    save_tensors(file, tensors)


def load_snapshot(files: Sequence[Path], memory: Any, grown: Any, kernels: Mapping[str, Any]) -> Snapshot:
    """Read the last of a run's snapshots so far. memory: shapes that the method's memory has at least; grown: the same
    with more concept rows: where the two differ, what the file lacks is filled with zeros. kernels: the base model's
    K/V kernels, for structure and shapes.

    Raises WeightsMismatch if a file is missing or cut short, ValueError if it belongs to another model or method.
    """
    file = files[-1]
    index = dict(index_file(file)[0])
    masks = _unpacked_like(
        kernels, {k.removeprefix(_MASK): v.raw() for k, v in index.items() if k.startswith(_MASK)}, file
    )
    if _OLD_ROWS in index:
        stored = _of_old(files, kernels)
    else:
        stored = {k.removeprefix(_MEMORY): v.raw() for k, v in index.items() if k.startswith(_MEMORY)}
    wanted, larger = _named(memory), _named(grown)
    lacking = sorted(set(wanted) - set(stored))
    if lacking:
        raise ValueError(f"{file} is damaged, or of another method: it lacks {lacking[0]}")
    leaves = [_fitted(stored[name], leaf, larger[name], f"{file}: {name}") for name, leaf in wanted.items()]
    moment = index[_MOMENT].raw() if _MOMENT in index else None
    return Snapshot(jax.tree.unflatten(jax.tree.structure(memory), leaves), masks, moment)


def packed_masks(files: Sequence[Path]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Of every kernel: its dotted name, how many weights it has, and the files' masks as packed bits, uint8 (files, b).
    Nothing where the files hold no masks.

    One kernel is read at a time. Raises WeightsMismatch if a file is missing or cut short, KeyError if they are of
    different models.
    """
    indexes = [index_file(file)[0] for file in files]
    for key in [key for key in indexes[0] if key.startswith(_MASK)]:
        name = key.removeprefix(_MASK)
        kernel = next(k for k in (f"{_MEMORY}kernels.{name}", _OLD_KERNEL + name) if k in indexes[0])
        yield name, int(np.prod(indexes[0][kernel].shape)), np.stack([index[key].raw() for index in indexes])


def load_moment(file: Path) -> np.ndarray | None:
    """A snapshot's moment_dd alone; raises WeightsMismatch if the file is missing or cut short."""
    where = index_file(file)[0].get(_MOMENT)
    return None if where is None else where.raw()


def _named(tree: Any) -> dict[str, Any]:
    """Dotted name -> leaf of any pytree, in the order of its leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _packed(array: np.ndarray) -> np.ndarray:
    return np.packbits(array) if array.dtype == bool else array


def _fitted(array: np.ndarray, wanted: Any, larger: Any, what: str) -> np.ndarray:
    """The stored array in the wanted shape, with zeros behind it where it has fewer rows than a run now reserves."""
    if wanted.dtype == bool:
        return _unpacked(array, wanted.shape, what)
    grows = [one != other for one, other in zip(wanted.shape, larger.shape, strict=True)]
    agree = array.ndim == len(grows) and all(
        g or a == w for g, a, w in zip(grows, array.shape, wanted.shape, strict=True)
    )
    if not agree:
        raise ValueError(f"{what} has the shape {array.shape} and not {wanted.shape}: it belongs to another model")
    return np.pad(array, [(0, max(w - a, 0)) for a, w in zip(array.shape, wanted.shape, strict=True)])


def _unpacked(bits: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    if bits.shape != (-(-math.prod(shape) // 8),):
        raise ValueError(f"{what} holds {bits.size} bytes: it belongs to another model, or it is damaged")
    return np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape)


def _unpacked_like(kernels: Mapping[str, Any], bits: Mapping[str, np.ndarray], file: Path) -> Tree | None:
    """Masks nested as the kernels; None where there are none."""
    if not bits:
        return None
    shapes = {name: leaf.shape for name, leaf in flatten(kernels).items()}
    if set(bits) != set(shapes):
        wrong = sorted(set(bits) ^ set(shapes))[0]
        raise ValueError(f"{file} is damaged, or belongs to another model: its neuron masks differ in {wrong}")
    return like(
        {name: _unpacked(bits[name], shape, f"{file}: mask of {name}") for name, shape in shapes.items()}, kernels
    )


def _of_old(files: Sequence[Path], kernels: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What runs kept before methods had memories of their own, by today's names: kernels, rows, and the union of all
    masks so far, packed."""
    tensors = {key: where.raw() for key, where in index_file(files[-1])[0].items()}
    found = {f"kernels.{k.removeprefix(_OLD_KERNEL)}": v for k, v in tensors.items() if k.startswith(_OLD_KERNEL)}
    wanted = {f"kernels.{name}": leaf.shape for name, leaf in flatten(kernels).items()}
    if {name: array.shape for name, array in found.items()} != wanted:
        raise ValueError(f"{files[-1]} belongs to another model: its cross-attention kernels differ in name or shape")
    union = {f"union.{name}": np.bitwise_or.reduce(bits) for name, _, bits in packed_masks(files)}
    return {**found, **union, "rows_rd": tensors[_OLD_ROWS]}
