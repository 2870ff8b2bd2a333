"""Concept patches: what one lesson changed, in a file of its own that is replayed on a base model.

A patch holds the change of the cross-attention K/V kernels (`weights.changes`: sparse or of low rank), the concept's
token row and, where it is known, a factor of the second moment of its prompts' text features. All other weights are as
the patch before left them, so base + patches in order = the trained model: to the bit where all of them are sparse and
float32, to the errors that they state otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax.core.files import FileError, is_file_name, require_keys, save_tensors
from cns_jax.core.tree import flatten, like
from cns_jax.weights.changes import CHANGES, Change, Damaged, Sparse
from cns_jax.weights.tensors import Stored, index_file

_NAMES = ("name", "token", "class_word", "base", "parent", "base_name", "parent_name")
_TOLD = {**dict.fromkeys(_NAMES, str), "about": dict}
_SPARSE, _ANY = "cns-patch-1", "cns-patch-2"  # the first of them is a sparse change without a moment
_KEY, _ROW, _MOMENT = "cns_jax.patch", "token_row", "moment"


class PatchError(ValueError):
    """A patch that is damaged, or does not follow what it is applied to."""


@dataclass(frozen=True)
class Patch:
    """One concept's patch.

    change: of the K/V kernels; row_d: float32; moment_kd: factor F of the moment of the concept's text features, mean
    of x x^T ~ F^T F, float32 (None: not known).
    base: fingerprint of the base model; parent: id of the patch before, "" for the first; base_name, parent_name: what
    people call them. about: settings and other JSON; metadata: ModelSpec fields.
    """

    name: str
    token: str
    class_word: str
    base: str
    parent: str
    change: Change
    row_d: np.ndarray
    moment_kd: np.ndarray | None = None
    base_name: str = ""
    parent_name: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """The version that the file is of: what older versions of the program can read stays as they know it."""
        return _SPARSE if self.change.kind == Sparse.kind and self.moment_kd is None else _ANY

    @property
    def id(self) -> str:
        """SHA-256 of content, base and parent, first 16 hex digits."""
        digest = hashlib.sha256(f"{self.format}:{self.base}:{self.parent}:{self.token}:{self.class_word};".encode())
        if self.format == _ANY:
            digest.update(f"{self.change.kind};".encode())
        self.change.add_to(digest)
        if self.moment_kd is not None:
            digest.update(f"{_MOMENT}:{self.moment_kd.shape};".encode())
            digest.update(np.ascontiguousarray(self.moment_kd, np.float32).data)
        digest.update(np.ascontiguousarray(self.row_d, np.float32).data)
        return digest.hexdigest()[:16]

    def apply(self, kernels: Mapping[str, Any]) -> dict[str, Any]:
        """New kernels with this concept's change; the given ones stay as they are.

        Raises PatchError if the kernels have other names or shapes.
        """
        return like(self.change.apply(self._fitting(kernels)), kernels)

    def undo(self, kernels: Mapping[str, Any], before: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """New kernels with the values that `replaced_values` kept before `apply`.

        Raises PatchError if `before` was not kept whole."""
        flat = self._fitting(kernels)
        if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in self.change.replaced(flat).items()}:
            raise PatchError(f"what the patch of {self.name} overwrote is not kept whole; it cannot be taken out")
        return like(self.change.undo(flat, before), kernels)

    def replaced_values(self, kernels: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What `apply` overwrites in `kernels`, for `undo`."""
        return self.change.replaced(self._fitting(kernels))

    def first_difference(self, kernels: Mapping[str, Any], before: Mapping[str, np.ndarray]) -> str | None:
        """The first of `kernels` that is not what this patch makes of the ones before it, which `undo` gives with
        `before`: to the bit for a sparse change, to `change.tolerance` of a weight for another."""
        flat = self._fitting(kernels)
        again = flatten(self.apply(self.undo(kernels, before)))
        near = self.change.tolerance
        differs = (n for n in flat if not np.allclose(flat[n], again[n], rtol=near, atol=near * near))
        return next(differs, None)

    def _fitting(self, kernels: Mapping[str, Any]) -> dict[str, np.ndarray]:
        flat = {name: np.asarray(leaf) for name, leaf in flatten(kernels).items()}
        if {k: v.shape for k, v in flat.items()} != self.change.shapes:
            raise PatchError(f"the patch of {self.name} is for a model with other cross-attention kernels")
        return flat


def write_patch(file: Path, patch: Patch) -> Path:
    """Write a patch, complete or not at all."""
    tensors = {**patch.change.tensors(), _ROW: patch.row_d}
    if patch.moment_kd is not None:
        tensors[_MOMENT] = patch.moment_kd
    described = {
        "format": patch.format,
        "id": patch.id,
        "base": patch.base,
        "parent": patch.parent,
        "base_name": patch.base_name,
        "parent_name": patch.parent_name,
        "name": patch.name,
        "token": patch.token,
        "class_word": patch.class_word,
        "shapes": {name: list(shape) for name, shape in patch.change.shapes.items()},
        "about": dict(patch.about),
    }
    if patch.format == _ANY:
        described["change"] = patch.change.kind
    return save_tensors(file, tensors, {**patch.metadata, _KEY: json.dumps(described)})


def read_patch(file: Path) -> Patch:
    """Read a patch and check it against its own id.

    Raises PatchError if the file is no patch or was changed, WeightsMismatch if it is cut short.
    """
    stored, metadata = index_file(file)
    if _KEY not in metadata:
        raise PatchError(f"{file} is not a concept patch (no {_KEY} in its metadata)")
    described = _described(file, metadata[_KEY])
    try:
        change = CHANGES[described.get("change", Sparse.kind)].read(stored, described["shapes"])
        row, moment = _row(stored, change), _moment(stored, change)
    except Damaged as error:
        raise PatchError(f"{file} is damaged: {error}") from None
    rest = {k: v for k, v in metadata.items() if k != _KEY}
    told = {key: described[key] for key in _TOLD}
    patch = Patch(change=change, row_d=row, moment_kd=moment, metadata=rest, **told)
    if patch.format != described["format"]:
        raise PatchError(f"{file} is damaged: it says {described['format']}, and holds what belongs to {patch.format}")
    if patch.id != described["id"]:
        raise PatchError(f"{file} was changed: its content has the id {patch.id}, it says {described['id']}")
    return patch


def _row(stored: Mapping[str, Stored], change: Change) -> np.ndarray:
    """The token's row. Raises Damaged without one."""
    if _ROW not in stored:
        raise Damaged(f"it has no {_ROW}")
    return stored[_ROW].raw()


def _moment(stored: Mapping[str, Stored], change: Change) -> np.ndarray | None:
    """The factor of the concept's moment, if there is one. Raises Damaged if it is no such thing."""
    if _MOMENT not in stored:
        return None
    found = stored[_MOMENT]
    widths = {shape[0] for shape in change.shapes.values()}
    if len(found.shape) != 2 or {found.shape[1]} != widths:
        raise Damaged(f"its {_MOMENT} has the shape {found.shape}, its kernels read {sorted(widths)} features")
    moment = found.raw()
    if moment.dtype != np.float32 or not np.isfinite(moment).all():
        raise Damaged(f"its {_MOMENT} holds what is no finite float32")
    return moment


def _described(file: Path, text: str) -> dict[str, Any]:
    """What a patch says of itself. Raises PatchError if it is of another version or damaged."""
    try:
        described = json.loads(text)
        require_keys(described, {"format": str}, f"{file}: its metadata")
        if described["format"] not in (_SPARSE, _ANY):
            raise PatchError(f"{file} has the format {described['format']!r}; this version reads {_SPARSE} and {_ANY}")
        require_keys(described, {"id": str, "shapes": dict, **_TOLD}, f"{file}: its metadata")
        if described["format"] == _ANY:
            require_keys(described, {"change": str}, f"{file}: its metadata")
            if described["change"] not in CHANGES:
                raise PatchError(f"{file} holds a change that is {described['change']!r}; known: {', '.join(CHANGES)}")
        elif "change" in described:
            raise PatchError(f"{file} is damaged: {_SPARSE} names no kind of change")
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
