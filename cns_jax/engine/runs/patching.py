"""Concept patches on a model folder: apply, revert, show, verify.

A patched folder is an ordinary diffusers folder with a sub-folder patches/: the patches that were applied, what each
of them overwrote, and patches.json with the base model's fingerprint and the order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax.core.files import copy_folder, read_json, require_keys, save_tensors
from cns_jax.core.settings import SettingsError, require
from cns_jax.engine.runs.learned import kernels_of, token_table, with_concepts, with_rows
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import MINIATURE
from cns_jax.text.tokenizer import drop_last_token, load_tokenizer
from cns_jax.weights.fidelity import Fidelity
from cns_jax.weights.folder import write_pipeline
from cns_jax.weights.locate import Address
from cns_jax.weights.patch import Patch, PatchError, check_order, read_patch
from cns_jax.weights.pipeline import Pipeline
from cns_jax.weights.tensors import index_file

_FOLDER, _RECORD = "patches", "patches.json"


@dataclass(frozen=True)
class Applied:
    """What lies in a folder's patches/. names: files without suffix, in order."""

    base: str
    names: tuple[str, ...]
    ids: tuple[str, ...]
    folder: Path

    @classmethod
    def of(cls, address: Address) -> Applied | None:
        """The record of a patched folder; None for any other model."""
        model = Path(address.model)
        record = model / _FOLDER / _RECORD
        if address.model == MINIATURE or not record.is_file():
            return None
        found = read_json(record)
        require_keys(found, {"base": str, "patches": list}, str(record))
        rows = found["patches"]
        for index, row in enumerate(rows):
            require_keys(row, {"name": str, "id": str}, f"{record}, patch {index + 1}")
        return cls(found["base"], tuple(r["name"] for r in rows), tuple(r["id"] for r in rows), model / _FOLDER)

    @property
    def order(self) -> list[tuple[str, str]]:
        """(id, file name) of each patch."""
        return list(zip(self.ids, self.names, strict=True))

    def patch(self, index: int) -> Patch:
        """The patch number `index`."""
        return read_patch(self.folder / f"{self.names[index]}.safetensors")

    def overwritten(self, index: int) -> dict[str, np.ndarray]:
        """What the patch number `index` overwrote."""
        stored, _ = index_file(self.folder / f"{self.names[index]}.undo.safetensors")
        return {key: where.raw() for key, where in stored.items()}


def _read(files: Sequence[str]) -> list[Patch]:
    require(bool(files), "no patch files are given")
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise SettingsError(f"there is no file {', '.join(missing)}")
    return [read_patch(Path(file)) for file in files]


def _write_record(folder: Path, base: str, order: Sequence[tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    value = {"base": base, "patches": [{"name": name, "id": id_} for id_, name in order]}
    (folder / _RECORD).write_text(json.dumps(value, indent=2) + "\n")


def apply(address: Address, files: Sequence[str], out: str) -> Path:
    """Replay patches on a base model, or on a patched folder that they continue; writes the folder `out`.

    Raises PatchError for a wrong base or order, naming both sides.
    """
    _free(out, address)
    patches = _read(files)
    applied = Applied.of(address)
    source = find_source(address)
    pipeline = source.load()
    base = applied.base if applied else pipeline.ids["model"]
    check_order(base, applied.order if applied else [], patches)
    kernels: Mapping[str, Any] = kernels_of(pipeline)
    overwritten = []
    for patch in patches:
        overwritten.append(patch.replaced_values(kernels))
        kernels = patch.apply(kernels)
    rows = np.stack([patch.row_d for patch in patches])
    merged, write_tokenizer = with_concepts(pipeline, kernels, [patch.token for patch in patches], rows)

    def add(folder: Path) -> None:
        target = folder / _FOLDER
        if applied:
            copy_folder(applied.folder, target)
        order = applied.order if applied else []
        target.mkdir(exist_ok=True)
        for file, patch, before in zip(files, patches, overwritten, strict=True):
            name = f"{len(order) + 1:02d}_{patch.name}"
            shutil.copyfile(file, target / f"{name}.safetensors")
            save_tensors(target / f"{name}.undo.safetensors", before)
            order.append((patch.id, name))
        _write_record(target, base, order)

    return write_pipeline(out, merged, write_tokenizer=write_tokenizer, add=add)


def _undone(pipeline: Pipeline, applied: Applied, index: int) -> Pipeline:
    """The pipeline without patch `index`, its last one."""
    kernels = applied.patch(index).undo(kernels_of(pipeline), applied.overwritten(index))
    return with_rows(pipeline, kernels, len(token_table(pipeline)) - 1)


def revert(model: str, out: str) -> tuple[Path, str]:
    """Take the last concept out of a patched folder, exactly; writes the folder `out`. Returns it and the name."""
    applied = _applied(Address(model))
    _free(out, Address(model))
    before = _undone(find_source(Address(model)).load(), applied, -1)
    kept = applied.order[:-1]

    def add(folder: Path) -> None:
        for _, name in kept:
            for file in (f"{name}.safetensors", f"{name}.undo.safetensors"):
                (folder / _FOLDER).mkdir(exist_ok=True)
                shutil.copyfile(applied.folder / file, folder / _FOLDER / file)
        if kept:
            _write_record(folder / _FOLDER, applied.base, kept)

    tokenizer = load_tokenizer(before.tokenizer)
    folder = write_pipeline(out, before, write_tokenizer=lambda path: drop_last_token(tokenizer, path), add=add)
    return folder, applied.names[-1]


def verify(address: Address, files: Sequence[str]) -> list[str]:
    """Check, and change nothing. With files: that they follow the model. Without: that a patched folder is its base
    model plus its patches: to the bit, and to a millionth of a weight where a patch of low rank was applied by another
    machine. Returns lines that say what holds; raises PatchError for what does not."""
    applied = Applied.of(address)
    if files:
        patches = _read(files)
        base = applied.base if applied else find_source(address).load().ids["model"]
        check_order(base, applied.order if applied else [], patches)
        return [f"{patch.name} ({patch.id}): whole, and next in order" for patch in patches]
    applied = _applied(address)
    pipeline = find_source(address).load()
    tokens = load_tokenizer(pipeline.tokenizer)
    lines = []
    for index in reversed(range(len(applied.names))):
        patch = applied.patch(index)
        if patch.id != applied.ids[index]:
            raise PatchError(f"{applied.names[index]} is not the patch that was applied ({applied.ids[index]})")
        kernels = kernels_of(pipeline)
        wrong = patch.first_difference(kernels, applied.overwritten(index))
        if wrong:
            raise PatchError(f"{address.model}: the weights of {applied.names[index]} were changed, first in {wrong}")
        table = token_table(pipeline)
        if not np.array_equal(table[-1], patch.row_d) or tokens.ids(patch.token) != (len(table) - 1,):
            raise PatchError(f"{address.model}: the token {patch.token} of {applied.names[index]} was changed")
        pipeline = _undone(pipeline, applied, index)
        lines.append(f"{applied.names[index]} ({patch.id}): {patch.change} and {patch.token} are in the model")
    if pipeline.ids["model"] != applied.base:
        raise PatchError(
            f"{address.model}: below its patches lies the model {pipeline.ids['model']}, not its base {applied.base}"
        )
    return [*reversed(lines), f"below them lies the base model {applied.base}, unchanged"]


def show(file: str) -> list[str]:
    """What a patch says of itself, a line a fact."""
    patch = _read([file])[0]
    method = patch.about.get("method", {})
    return [
        f"{patch.name}: {patch.token} {patch.class_word} ({patch.about.get('kind', 'subject')})",
        f"id {patch.id}, follows {patch.parent or 'the base model'}; base model {patch.base}",
        f"{patch.change}, {patch.change.dtype}, {Path(file).stat().st_size / 1e6:.2f} MB",
        *_error(patch),
        f"method {', '.join(f'{k} {v}' for k, v in method.items())}",
        *(f"{k.removeprefix('modelspec.')}: {v}" for k, v in patch.metadata.items() if "thumbnail" not in k),
    ]


def _error(patch: Patch) -> list[str]:
    """How far the model with the patch is from the trained one, if it says so."""
    told = Fidelity.told(patch.about)
    return [str(told)] if told else []


def _applied(address: Address) -> Applied:
    applied = Applied.of(address)
    if applied is None:
        raise PatchError(f"{address.model} is not a patched folder (no {_FOLDER}/{_RECORD} in it)")
    return applied


def _free(out: str, address: Address) -> None:
    """Refuse to overwrite anything, and to write into the model."""
    require(bool(out), "--out is needed: the folder to write")
    path, model = Path(out).expanduser().resolve(), Path(address.model).resolve()
    require(path != model and model not in path.parents, f"--out={out} lies in the model; give another folder")
    holds = path.exists() and (path.is_file() or any(path.iterdir()))
    require(not holds, f"--out={out} exists already; give a folder that does not")
