"""What a lesson changed in the cross-attention K/V kernels, in the two forms that a patch stores.

Sparse: the neuron mask and the new values of the selected weights. Low rank: W_m = W_{m-1} + basis @ coefficients, with
one basis for all kernels, since all of them read the same text features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.weights.tensors import Stored

FLOATS = ("float32", "float16", "bfloat16")
_BASIS = "basis"


class Damaged(ValueError):
    """Tensors of a patch that do not fit each other; the message names the tensor, not the file."""


class Change(Protocol):
    """kind: its name in a patch's metadata. tolerance: how far, relative to a weight, two machines may differ in what
    they make of it."""

    kind: ClassVar[str]
    tolerance: ClassVar[float]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Dotted kernel name -> shape of the kernel."""

    @property
    def dtype(self) -> np.dtype:
        """Of the stored numbers."""

    def __str__(self) -> str:
        """How much it is, for people."""

    def add_to(self, digest: Any) -> None:
        """Take the content into a hash of hashlib."""

    def apply(self, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Dotted name -> new float32 kernel; the given ones stay as they are."""

    def replaced(self, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `apply` overwrites, for `undo`."""

    def undo(self, flat: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The kernels that `replaced` was asked about, to the bit."""

    def tensors(self) -> dict[str, np.ndarray]:
        """What a file holds."""


@dataclass(frozen=True)
class Sparse:
    """masks: dotted kernel name -> bool, shape of the kernel; values: the selected weights in the order of the kernel's
    elements, 1-D. `apply` writes float32 values as they are."""

    masks: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    kind: ClassVar[str] = "sparse"
    tolerance: ClassVar[float] = 0.0

    @classmethod
    def of(cls, kernels: Mapping[str, Any], mask: Mapping[str, Any], dtype: Any) -> Sparse:
        """The selected weights of `kernels`; both nested as in the UNet's parameters."""
        masks = {name: np.asarray(m) for name, m in flatten(mask).items()}
        return cls(masks, {name: np.asarray(w)[masks[name]].astype(dtype) for name, w in flatten(kernels).items()})

    @classmethod
    def read(cls, stored: Mapping[str, Stored], shapes: Mapping[str, Any]) -> Sparse:
        """From a file's tensors. Raises Damaged."""
        masks, values = {}, {}
        for name, shape in shapes.items():
            packed, value = stored.get(f"mask.{name}"), stored.get(f"values.{name}")
            whole = isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)
            if packed is None or value is None or not whole or packed.shape != (-(-math.prod(shape) // 8),):
                raise Damaged(f"what it holds of {name} does not fit its shape {shape!r}")
            bits = np.unpackbits(packed.raw(), count=math.prod(shape))
            masks[name], values[name] = bits.astype(bool).reshape(shape), value.raw()
            if values[name].shape != (int(bits.sum()),):
                raise Damaged(f"{name} has {int(bits.sum())} selected weights, {value.shape} values")
        return cls(masks, values)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Dotted kernel name -> shape of the kernel."""
        return {name: mask.shape for name, mask in self.masks.items()}

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return next(iter(self.values.values())).dtype

    @property
    def count(self) -> int:
        """Selected weights."""
        return sum(int(v.size) for v in self.values.values())

    def __str__(self) -> str:
        return f"{self.count} weights ({self.count / _weights(self.shapes):.2%} of the cross-attention K/V)"

    def add_to(self, digest: Any) -> None:
        """Take masks and values into a hash of hashlib."""
        for name in sorted(self.masks):
            values = np.ascontiguousarray(self.values[name])
            digest.update(f"{name}:{self.masks[name].shape}:{values.dtype};".encode())
            digest.update(np.packbits(self.masks[name]).data)
            digest.update(values.view(np.uint8).data)

    def apply(self, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Dotted name -> kernel with the new values."""
        return self.undo(flat, self.values)

    def replaced(self, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Dotted name -> the selected weights as they are."""
        return {name: flat[name][mask] for name, mask in self.masks.items()}

    def undo(self, flat: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Dotted name -> kernel with the selected weights of `before`."""
        out = {name: np.array(leaf) for name, leaf in flat.items()}
        for name, mask in self.masks.items():
            out[name][mask] = before[name].astype(np.float32)
        return out

    def tensors(self) -> dict[str, np.ndarray]:
        """Packed masks, 8 weights a byte, and values."""
        packed = {f"mask.{name}": np.packbits(mask) for name, mask in self.masks.items()}
        return packed | {f"values.{name}": values for name, values in self.values.items()}


@dataclass(frozen=True)
class LowRank:
    """basis_dr: float32, d input features, r directions; coefficients: dotted kernel name -> (r, out), float32, float16
    or bfloat16."""

    basis_dr: np.ndarray
    coefficients: Mapping[str, np.ndarray]
    kind: ClassVar[str] = "low-rank"
    tolerance: ClassVar[float] = 1e-6

    @classmethod
    def read(cls, stored: Mapping[str, Stored], shapes: Mapping[str, Any]) -> LowRank:
        """From a file's tensors. Raises Damaged."""
        found = stored.get(_BASIS)
        if found is None or len(found.shape) != 2 or not 0 < found.shape[1] <= found.shape[0]:
            raise Damaged(f"its {_BASIS} is {f'of the shape {found.shape}' if found else 'missing'}")
        basis, coefficients = found.raw(), {}
        for name, shape in shapes.items():
            value = stored.get(f"coefficients.{name}")
            sound = isinstance(shape, list) and len(shape) == 2 and shape[0] == len(basis)
            if value is None or not sound or value.shape != (basis.shape[1], shape[1]):
                raise Damaged(f"what it holds of {name} does not fit its shape {shape!r}")
            coefficients[name] = value.raw()
        if not coefficients:
            raise Damaged("it names no kernel")
        if basis.dtype != np.float32 or len({c.dtype for c in coefficients.values()}) > 1:
            raise Damaged(f"its {_BASIS} is of {basis.dtype}, or its coefficients are of several types")
        for name, numbers in ((_BASIS, basis), *coefficients.items()):
            if numbers.dtype.name not in FLOATS or not np.isfinite(numbers.astype(np.float32)).all():
                raise Damaged(f"{name} holds what is no finite number, or numbers of {numbers.dtype}")
        return cls(basis, coefficients)

    @property
    def rank(self) -> int:
        """r."""
        return self.basis_dr.shape[1]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Dotted kernel name -> shape of the kernel."""
        return {name: (len(self.basis_dr), c.shape[1]) for name, c in self.coefficients.items()}

    @property
    def dtype(self) -> np.dtype:
        """Of the coefficients."""
        return next(iter(self.coefficients.values())).dtype

    def __str__(self) -> str:
        return f"a change of rank {self.rank} in all {_weights(self.shapes)} cross-attention K/V weights"

    def add_to(self, digest: Any) -> None:
        """Take basis and coefficients into a hash of hashlib."""
        for name, numbers in ((_BASIS, self.basis_dr), *sorted(self.coefficients.items())):
            numbers = np.ascontiguousarray(numbers)
            digest.update(f"{name}:{numbers.shape}:{numbers.dtype};".encode())
            digest.update(numbers.view(np.uint8).data)

    def apply(self, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Dotted name -> kernel + basis @ coefficients."""
        # summed in float64 and rounded once, so that the order in which a machine sums hardly ever shows in float32
        basis = self.basis_dr.astype(np.float64)
        return {
            name: (flat[name] + basis @ self.coefficients[name].astype(np.float64)).astype(np.float32) for name in flat
        }

    def replaced(self, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All kernels: a difference of floats would not give them back to the bit."""
        return {name: np.array(leaf, np.float32) for name, leaf in flat.items()}

    def undo(self, flat: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Copies of `before`."""
        return {name: np.array(before[name]) for name in flat}

    def tensors(self) -> dict[str, np.ndarray]:
        """The basis and the coefficients."""
        return {_BASIS: self.basis_dr} | {f"coefficients.{name}": c for name, c in self.coefficients.items()}


CHANGES: dict[str, type[Sparse] | type[LowRank]] = {change.kind: change for change in (Sparse, LowRank)}


def _weights(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
