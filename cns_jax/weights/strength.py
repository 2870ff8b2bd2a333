"""How strongly a model follows what it was taught: between the base model's weights, the trained ones, and beyond."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cns_jax.core.settings import require
from cns_jax.core.tree import flatten, like

STRONGEST = 2.0


def check_strength(strength: float) -> None:
    """Raises SettingsError unless `strength` is a number from 0 to `STRONGEST`."""
    require(
        0 <= strength <= STRONGEST,
        f"strength={strength} must be from 0 (the base model's weights) to {STRONGEST:g}; 1 is as trained",
    )


def scaled_kernels(base: Mapping[str, Any], kernels: Mapping[str, Any], strength: float) -> Mapping[str, Any]:
    """W_0 + strength (W - W_0) of every cross-attention K/V kernel, float32, nested like `kernels`.

    base, kernels: the base model's kernels and the trained ones, with the same names and shapes. Strength 1 gives
    `kernels` themselves and 0 the values of `base`, both exact to the bit. Raises SettingsError for a strength out of
    range, ValueError if the names differ.
    """
    check_strength(strength)
    if strength == 1:
        return kernels
    before, after = flatten(base), flatten(kernels)
    if set(before) != set(after):
        raise ValueError(f"the kernels' names differ: {sorted(set(before) ^ set(after))[:8]}")
    scaled = {}
    for name, kernel in after.items():
        start = np.asarray(before[name], np.float32)
        scaled[name] = start + np.float32(strength) * (np.asarray(kernel, np.float32) - start)
    return like(scaled, kernels)
