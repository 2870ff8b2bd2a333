"""The kind of device that programs are traced for: what formulations are chosen by."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal

import jax

_asked: ContextVar[str | None] = ContextVar("platform", default=None)


PLAIN = "plain"
"""The platform of programs that use no formulation of our own for any device: ordinary jax.numpy, jax.lax and flax."""

OPS_VARIABLE = "CNS_JAX_COMPUTE_OPS"
"""The environment variable that makes all programs of a process PLAIN; config.compute_ops does so for a run."""


def platform() -> str:
    """ "cpu", "gpu" or "tpu": JAX's default backend; or what `compiled_for` or OPS_VARIABLE asks for."""
    return _asked.get() or (PLAIN if os.environ.get(OPS_VARIABLE) == PLAIN else jax.default_backend())


def cuda_capability() -> float:
    """Compute capability of the NVIDIA GPU that programs are traced for: 8 is Ampere's (2020), whose matrix units take
    bfloat16, as Triton's kernels want, 9 Hopper's. 0 on all else; a GPU that is compiled for ahead of time is taken for
    Hopper's."""
    if platform() != "gpu":
        return 0.0
    if _asked.get():
        return 9.0
    found = str(getattr(jax.local_devices()[0], "compute_capability", ""))  # AMD's are words
    return float(found) if re.fullmatch(r"\d+\.\d+", found) else 0.0


@contextmanager
def compute_ops(kind: Literal["fast", "plain"]) -> Iterator[None]:
    """Trace the block with formulations that are fast on this device, or with ordinary ones alone (PLAIN), which differ
    by rounding, are slower on a CPU, and can be differentiated forwards too."""
    with compiled_for(PLAIN) if kind == PLAIN else nullcontext():
        yield


@contextmanager
def compiled_for(name: str) -> Iterator[None]:
    """Trace the block for another `platform`: to compile ahead of time for a device that is not here."""
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)
