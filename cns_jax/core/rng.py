"""Random streams: one purpose, one key, derived by name and step; and seeds of up to 64 bits."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.settings import require

SEEDS = 2**64
"""How many seeds there are: 0 to SEEDS - 1."""

_NARROW = 2**32


def check_seed(seed: int, where: str = "seed") -> None:
    """Raises SettingsError unless `seed` is one of the SEEDS; where: what the user calls it."""
    require(0 <= seed < SEEDS, f"{where}={seed} must be from 0 to {SEEDS - 1}, the largest of 64 bits")


def stream(key: jax.Array, name: str, step: jax.Array | int | None = None) -> jax.Array:
    """The key of purpose `name` at `step`.

    Nothing is split and carried, so a resumed run draws what the uninterrupted one would have drawn without
    any key in its checkpoint.
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
    return key if step is None else jax.random.fold_in(key, step)


def key_of(seed: int) -> jax.Array:
    """The key of a seed from 0 to SEEDS - 1: what `jax.random.key` makes of it where JAX counts in 64 bits.

    Without them `jax.random.key` drops the upper half of a seed without a word, or raises an OverflowError.
    """
    return jax.random.key(seed) if seed < _NARROW else jax.random.wrap_key_data(jnp.asarray(seed_words([seed])[0]))


def is_wide(seed: int) -> bool:
    """Whether a seed needs more than 32 bits."""
    return seed >= _NARROW


def seed_words(seeds: Sequence[int]) -> np.ndarray:
    """Seeds as arrays that `keys_of` takes: uint32 (b,) if none is wide, else (b, 2), the upper half first."""
    if not any(is_wide(seed) for seed in seeds):
        return np.asarray(seeds, np.uint32)
    return np.asarray([divmod(seed, _NARROW) for seed in seeds], np.uint32)


def keys_of(words: jax.Array) -> jax.Array:
    """A key a seed (b,) of `seed_words`; a seed has the same key in both forms."""
    return jax.vmap(jax.random.key if words.ndim == 1 else jax.random.wrap_key_data)(words)
