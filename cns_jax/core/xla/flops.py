"""How many floating-point operations a program takes, as XLA counts them before it fuses any."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from cns_jax.core.mesh import make_mesh
from cns_jax.core.xla.platform import PLAIN, compiled_for


def counting_mesh() -> Mesh:
    """The mesh that a program to be counted is traced with."""
    return make_mesh(devices=_cpu() or jax.devices()[:1])


def _cpu() -> list[jax.Device]:
    try:
        return jax.devices("cpu")[:1]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return []


def flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Of one call, whose arguments are arrays or their shapes; nothing is compiled or run. A loop's body counts once.

    Lowered for a CPU whatever the backend: GPU plugins do not count. Formulations are the plain ones, so that the count
    is the network's, whichever way a device computes it. NaN if this JAX has no CPU backend (JAX_PLATFORMS leaves it
    out).
    """
    if not (cpu := _cpu()):
        return math.nan
    where = SingleDeviceSharding(cpu[0])
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), arguments)
    with compiled_for(PLAIN):
        cost = jax.jit(function).lower(*shapes).cost_analysis() or {}
    return float(cost.get("flops", math.nan))
