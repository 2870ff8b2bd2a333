"""Concept patches: what one lesson changed, in a file of its own that is replayed on a base model.

A patch holds, for every cross-attention K/V kernel, the packed neuron mask and the new values of the selected weights
(in the order of the kernel's elements), and the concept's token row. All other weights are as the patch before left
them, so base + patches in order = the trained model, to the bit where the values are float32.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax.core.files import FileError, is_file_name, require_keys, save_tensors
from cns_jax.core.tree import flatten, like
from cns_jax.weights.tensors import index_file

_NAMES = ("name", "token", "class_word", "base", "parent", "base_name", "parent_name")
_TOLD = {**dict.fromkeys(_NAMES, str), "about": dict}
_FORMAT, _KEY, _ROW = "cns-patch-1", "cns_jax.patch", "token_row"


class PatchError(ValueError):
    """A patch that is damaged, or does not follow what it is applied to."""


@dataclass(frozen=True)
class Patch:
    """One concept's patch.

    masks: dotted kernel name -> bool, shape of the kernel; values: the selected weights, 1-D; row_d: float32.
    base: fingerprint of the base model; parent: id of the patch before, "" for the first; base_name, parent_name: what
    people call them. about: settings and other JSON; metadata: ModelSpec fields.
    """

    name: str
    token: str
    class_word: str
    base: str
    parent: str
    masks: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    row_d: np.ndarray
    base_name: str = ""
    parent_name: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """SHA-256 of content, base and parent, first 16 hex digits."""
        digest = hashlib.sha256(f"{_FORMAT}:{self.base}:{self.parent}:{self.token}:{self.class_word};".encode())
        for name in sorted(self.masks):
            values = np.ascontiguousarray(self.values[name])
            digest.update(f"{name}:{self.masks[name].shape}:{values.dtype};".encode())
            digest.update(np.packbits(self.masks[name]).data)
            digest.update(values.view(np.uint8).data)
        digest.update(np.ascontiguousarray(self.row_d, np.float32).data)
        return digest.hexdigest()[:16]

    @property
    def count(self) -> int:
        """Selected weights."""
        return sum(int(v.size) for v in self.values.values())

    def apply(self, kernels: Mapping[str, Any]) -> dict[str, Any]:
        """New kernels with this concept's values; the given ones stay as they are.

        Raises PatchError if the kernels have other names or shapes.
        """
        return self._replaced(kernels, self.values)

    def undo(self, kernels: Mapping[str, Any], before: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """New kernels with the values that `replaced_values` kept before `apply`."""
        return self._replaced(kernels, before)

    def replaced_values(self, kernels: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What `apply` overwrites in `kernels`, for `undo`."""
        flat = self._fitting(kernels)
        return {name: flat[name][mask] for name, mask in self.masks.items()}

    def _replaced(self, kernels: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        flat = {name: np.array(leaf) for name, leaf in self._fitting(kernels).items()}
        for name, mask in self.masks.items():
            flat[name][mask] = values[name].astype(np.float32)
        return like(flat, kernels)

    def _fitting(self, kernels: Mapping[str, Any]) -> dict[str, np.ndarray]:
        flat = {name: np.asarray(leaf) for name, leaf in flatten(kernels).items()}
        if {k: v.shape for k, v in flat.items()} != {k: v.shape for k, v in self.masks.items()}:
            raise PatchError(f"the patch of {self.name} is for a model with other cross-attention kernels")
        return flat


def make_patch(
    kernels: Mapping[str, Any], mask: Mapping[str, Any], row_d: np.ndarray, dtype: Any, **described: Any
) -> Patch:
    """The patch of one lesson from the kernels after it and its neuron mask. described: the other fields of Patch."""
    masks = {name: np.asarray(m) for name, m in flatten(mask).items()}
    values = {name: np.asarray(w)[masks[name]].astype(dtype) for name, w in flatten(kernels).items()}
    return Patch(masks=masks, values=values, row_d=np.asarray(row_d, np.float32), **described)


def write_patch(file: Path, patch: Patch) -> Path:
    """Write a patch, complete or not at all."""
    tensors = {f"mask.{name}": np.packbits(mask) for name, mask in patch.masks.items()}
    tensors |= {f"values.{name}": values for name, values in patch.values.items()}
    tensors[_ROW] = patch.row_d
    described = {
        "format": _FORMAT,
        "id": patch.id,
        "base": patch.base,
        "parent": patch.parent,
        "base_name": patch.base_name,
        "parent_name": patch.parent_name,
        "name": patch.name,
        "token": patch.token,
        "class_word": patch.class_word,
        "shapes": {name: list(mask.shape) for name, mask in patch.masks.items()},
        "about": dict(patch.about),
    }
    return save_tensors(file, tensors, {**patch.metadata, _KEY: json.dumps(described)})


def read_patch(file: Path) -> Patch:
    """Read a patch and check it against its own id.

    Raises PatchError if the file is no patch or was changed, WeightsMismatch if it is cut short.
    """
    stored, metadata = index_file(file)
    if _KEY not in metadata:
        raise PatchError(f"{file} is not a concept patch (no {_KEY} in its metadata)")
    described = _described(file, metadata[_KEY])
    masks, values = {}, {}
    for name, shape in described["shapes"].items():
        packed, value = stored.get(f"mask.{name}"), stored.get(f"values.{name}")
        whole = isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)
        if packed is None or value is None or not whole or packed.shape != (-(-math.prod(shape) // 8),):
            raise PatchError(f"{file} is damaged: what it holds of {name} does not fit its shape {shape!r}")
        bits = np.unpackbits(packed.raw(), count=math.prod(shape))
        masks[name], values[name] = bits.astype(bool).reshape(shape), value.raw()
        if values[name].shape != (int(bits.sum()),):
            raise PatchError(f"{file} is damaged: {name} has {int(bits.sum())} selected weights, {value.shape} values")
    if _ROW not in stored:
        raise PatchError(f"{file} is damaged: it has no {_ROW}")
    rest = {k: v for k, v in metadata.items() if k != _KEY}
    told = {key: described[key] for key in _TOLD}
    patch = Patch(masks=masks, values=values, row_d=stored[_ROW].raw(), metadata=rest, **told)
    if patch.id != described["id"]:
        raise PatchError(f"{file} was changed: its content has the id {patch.id}, it says {described['id']}")
    return patch


def _described(file: Path, text: str) -> dict[str, Any]:
    """What a patch says of itself. Raises PatchError if it is of another version or damaged."""
    try:
        described = json.loads(text)
        require_keys(described, {"format": str}, f"{file}: its metadata")
        if described["format"] != _FORMAT:
            raise PatchError(f"{file} has the format {described['format']!r}; this version reads {_FORMAT}")
        require_keys(described, {"id": str, "shapes": dict, **_TOLD}, f"{file}: its metadata")
        if not is_file_name(described["name"]):
            raise PatchError(f"{file}: {described['name']!r} is no name of a concept, after which files are called")
    except (json.JSONDecodeError, RecursionError, FileError) as error:
        raise PatchError(f"{file} is damaged: {error}") from None
    return dict(described)


def check_order(base: str, applied: Sequence[tuple[str, str]], patches: Sequence[Patch]) -> None:
    """Each patch must be for model `base` and follow the one before; applied: (id, name) of those in the model already.

    Raises PatchError naming the patch, what it follows and what is there.
    """
    before = list(applied)
    for patch in patches:
        if patch.base != base:
            raise PatchError(f"{patch.name} is for the base model {patch.base_name} ({patch.base}); this one is {base}")
        if patch.id in (id_ for id_, _ in before):
            raise PatchError(f"{patch.name} ({patch.id}) is applied already")
        last, name = before[-1] if before else ("", "")
        if patch.parent != last:
            follows = f"the patch {patch.parent_name} ({patch.parent})" if patch.parent else "the base model itself"
            here = f"the last patch is {name} ({last})" if last else "no patch is applied"
            raise PatchError(f"{patch.name} ({patch.id}) follows {follows}, but here {here}; apply them in order")
        before.append((patch.id, patch.name))
