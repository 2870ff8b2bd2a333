"""The kind of device that programs are traced for: what formulations are chosen by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

_asked: ContextVar[str | None] = ContextVar("platform", default=None)


NOTHING = "nothing"
"""The platform of programs that are traced for shapes alone, whose results are zeros."""

PLAIN = "plain"
"""The platform of programs that are traced to be counted: no device's formulations, but the libraries' own."""


def platform() -> str:
    """ "cpu", "gpu" or "tpu": JAX's default backend, or what `compiled_for` asks for; NOTHING in `shapes_of`."""
    return _asked.get() or jax.default_backend()


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
def compiled_for(name: str) -> Iterator[None]:
    """Trace the block for another `platform`: to compile ahead of time for a device that is not here."""
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def shapes_of(init: Callable[..., Any], *arguments: Any) -> Any:
    """`jax.eval_shape` of a function that makes parameters, at half its cost: what they are filled with, and what
    networks compute of them, is left out."""
    with compiled_for(NOTHING):
        # a function of its own: traces are kept by function, and a later jit of `init` must not find this one
        return jax.eval_shape(lambda *given: init(*given), *arguments)
