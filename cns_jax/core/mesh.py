"""One device mesh ("data", "fsdp") and the rules that place every leaf on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cns_jax.core.settings import require

_rows: ContextVar[Mesh | None] = ContextVar("rows", default=None)

ROWS = PartitionSpec(("data", "fsdp"))
"""A batch: its leading axis over all devices, those that share parameters included."""

Rules = Sequence[tuple[str, int | None]]
"""Pattern of names -> the axis that is split over fsdp, counted from the last, or None."""

# first match wins; a leaf without a match is an error, so that a typo cannot replicate gigabytes
PARAMETER_RULES: Rules = (
    (r"\.kernel$", -2),  # its inputs: of a convolution too, whose first axes are a 3 x 3 window
    (r"\.(bias|scale|embedding|class_embedding)$", None),
)


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices as (data, fsdp). fsdp: over how many of them parameters are split.

    Raises SettingsError if fsdp does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    require(len(devices) % fsdp == 0, f"fsdp={fsdp} does not divide the {len(devices)} devices")
    grid = np.asarray(devices).reshape(-1, fsdp)
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """The tree with every leaf on all devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def sharding_of(mesh: Mesh, name: str, shape: tuple[int, ...], rules: Rules = PARAMETER_RULES) -> NamedSharding:
    """Where a parameter lies, by the first matching rule; one with an axis that fsdp does not divide is replicated.

    Raises KeyError if no rule covers its name.
    """
    for pattern, axis in rules:
        if re.search(pattern, name):
            if axis is None or shape[axis] % mesh.shape["fsdp"]:
                return NamedSharding(mesh, PartitionSpec())
            return NamedSharding(mesh, PartitionSpec(*(None,) * (len(shape) + axis), "fsdp"))
    raise KeyError(f"no sharding rule covers {name!r}")


def place(mesh: Mesh, name: str, leaf: Any, rules: Rules = PARAMETER_RULES) -> jax.Array:
    """A parameter on the mesh. Raises KeyError if no rule covers its name."""
    return jax.device_put(leaf, sharding_of(mesh, name, leaf.shape, rules))


def over_data(mesh: Mesh, x: jax.Array) -> jax.Array:
    """Inside jit: split the leading axis over the mesh's devices; one that they do not divide stays as it lies."""
    return x if x.shape[0] % mesh.size else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, ROWS))


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """Inside jit: every device has the whole of each leaf."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


@contextmanager
def rows_over(mesh: Mesh) -> Iterator[None]:
    """Trace the block for batches whose leading axis is split over the mesh's devices."""
    token = _rows.set(mesh)
    try:
        yield
    finally:
        _rows.reset(token)


def knows_rows(count: int) -> bool:
    """Whether `of_own_rows` can take `count` rows: on one device, or where `rows_over` says how they lie."""
    mesh = _rows.get()
    return jax.device_count() == 1 if mesh is None else count % mesh.size == 0


def of_own_rows(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function` of arrays with a leading axis, by each device of its own rows: for kernels that XLA cannot split."""
    mesh = _rows.get()
    if mesh is None or mesh.size == 1:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=ROWS, out_specs=ROWS, check_vma=False)


def of_whole_kernel(
    function: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array
) -> jax.Array:
    """function(x, kernel), the kernel gathered from the devices that share it: for its gradient too, rather than kept.

    Left to itself, a TPU's compiler splits the products as the kernel is split, and moves rows and parts of kernels.
    """
    mesh = _rows.get()
    if mesh is None or mesh.shape["fsdp"] == 1:
        return function(x, kernel)
    return jax.checkpoint(lambda x, kernel: function(x, everywhere(mesh, kernel)))(x, kernel)
