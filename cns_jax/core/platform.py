"""The kind of device that programs are traced for: what formulations are chosen by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_asked: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """ "cpu", "gpu" or "tpu": JAX's default backend, or what `compiled_for` asks for."""
    return _asked.get() or jax.default_backend()


@contextmanager
def compiled_for(name: str) -> Iterator[None]:
    """Trace the block for another `platform`: to compile ahead of time for a device that is not here."""
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)
