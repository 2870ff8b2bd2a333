"""Random streams: one purpose, one key, derived by name and step."""

from __future__ import annotations

import zlib

import jax


def stream(key: jax.Array, name: str, step: jax.Array | int | None = None) -> jax.Array:
    """The key of purpose `name` at `step`.

    Nothing is split and carried, so a resumed run draws what the uninterrupted one would have drawn without
    any key in its checkpoint.
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
    return key if step is None else jax.random.fold_in(key, step)
