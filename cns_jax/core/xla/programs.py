"""Compiled programs kept whole: a later process runs them without tracing, lowering and compiling anything.

JAX's own cache is found by what tracing yields, which takes a training step longer than all else that a second start
does. Here a program is found by what decides about the trace: this package's sources, the versions of the libraries
that it is written with, JAX's settings, the devices, and the arguments.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from platform import machine, processor
from typing import Any

import jax
import numpy as np
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from jax.sharding import Mesh

from cns_jax.core.files import replacing
from cns_jax.core.threads import cores
from cns_jax.core.xla.platform import platform

_PACKAGE = Path(__file__).parents[2]
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_BEGUN = time.time()
_KEPT_BYTES = 2**30


class ProgramFolder:
    """A folder of programs, which must be the user's own: what is read from it is run.

    At most 1 GiB, the longest unused leaving first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, key: str) -> bool:
        return self._file(key).exists()

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.program"

    def load(self, key: str) -> jax.stages.Compiled:
        """The program; it takes the arguments that are not static. A file that cannot be read is deleted."""
        file = self._file(key)
        try:
            ids, (whole, inputs, outputs) = pickle.loads(file.read_bytes())
            devices = [device for device in jax.devices() if device.id in ids]
            program = deserialize_and_load(whole, inputs, outputs, execution_devices=devices)
        except Exception:
            file.unlink(missing_ok=True)
            raise
        os.utime(file)
        return program

    def keep(self, key: str, program: jax.stages.Compiled) -> None:
        """Write it for later processes."""
        shardings = jax.tree.leaves((program.input_shardings, program.output_shardings))
        ids = {device.id for sharding in shardings for device in sharding.device_set}
        whole = pickle.dumps((ids, serialize(program)))
        with replacing(self._file(key)) as temporary:
            temporary.write_bytes(whole)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        states = {file: file.stat() for file in self.folder.glob("*.program")}
        left = sum(state.st_size for state in states.values())
        for file in sorted(states, key=lambda file: states[file].st_mtime):
            if left <= _KEPT_BYTES:
                break
            file.unlink(missing_ok=True)
            left -= states[file].st_size


def program_key(name: str, static: Mapping[str, Any], arguments: Any, options: Mapping[str, str]) -> str | None:
    """What a program is found by. name: the function's, with its module; arguments: a pytree of arrays or their shapes.

    None where that is not known: a function or a static argument's class that is not this package's, sources that
    changed since this process began, or several processes that run together.
    """
    sources = _sources()
    if sources is None or not _is_ours(name) or jax.process_count() > 1:
        return None
    try:
        told = sorted((argument, _told(value)) for argument, value in static.items())
    except TypeError:
        return None
    leaves, tree = jax.tree.flatten(arguments)
    placements = [getattr(leaf, "sharding", None) for leaf in leaves]
    words = {placement: _placed(placement) for placement in set(placements)}  # few, which take long to put in words
    types = [(x.shape, str(x.dtype), x.weak_type) for x in map(jax.typeof, leaves)]
    of_leaves = [(*of, words[placement]) for of, placement in zip(types, placements, strict=True)]
    everything = (name, told, str(tree), of_leaves, sorted(options.items()), sources, _circumstances())
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def _placed(placement: Any) -> str:
    return f"{placement} {sorted(device.id for device in placement.device_set)}" if placement else ""


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == _PACKAGE.name


def _told(value: Any) -> Any:
    """A static argument in words that say all about it. Raises TypeError if it is not of a kind that is known here."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.dtype)):
        return repr(value)
    if isinstance(value, tuple):
        return [_told(x) for x in value]
    if isinstance(value, Mesh):
        return repr(value), [d.id for d in value.devices.flat]
    if dataclasses.is_dataclass(value) and _is_ours(type(value).__module__):
        fields = [(f.name, _told(getattr(value, f.name))) for f in dataclasses.fields(value)]
        return type(value).__module__, type(value).__qualname__, fields
    raise TypeError(f"{type(value)} is none of those that a program may depend on")


def _circumstances() -> Any:
    devices = [(d.id, d.device_kind) for d in jax.devices()]
    # where and how much JAX itself keeps does not change what it makes
    settings = sorted((k, repr(v)) for k, v in jax.config.values.items() if "cache" not in k)
    variables = [os.environ.get(name) for name in _VARIABLES]
    build = jax.devices()[0].client.platform_version
    return build, platform(), devices, settings, variables, _machine(), _versions()


@cache
def _versions() -> list[str]:
    return [version(library) for library in _LIBRARIES]


@cache
def _machine() -> list[str]:
    """The processor: a folder may be shared by machines with other instructions, and XLA splits loops by cores."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else [processor()]
    of_kind = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return [machine(), str(cores()), *sorted(of_kind)]


@cache
def _sources() -> str | None:
    """Of this package; None if they do not lie here as files, or one was written after it may have been imported."""
    digest, files = hashlib.sha256(), sorted(_PACKAGE.rglob("*.py"))
    for file in files:
        if file.stat().st_mtime > _BEGUN:
            return None
        digest.update(f"{file.relative_to(_PACKAGE)}:{file.stat().st_size}:".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else None
