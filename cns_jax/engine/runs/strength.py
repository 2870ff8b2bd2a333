"""How much of what was taught to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cns_jax.methods.applied import Applied
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.strength import check_strength, scaled_kernels


def scaled(base: Mapping[str, Any], taught: Applied, strength: float) -> Applied:
    """W_0 + strength (W - W_0) of the cross-attention K/V kernels, and strength times the low-rank additions; the rows
    stay. base: the parameters before all lessons. 1 gives `taught` itself, 0 the base model's weights, to the bit.

    Raises SettingsError for a strength out of range.
    """
    check_strength(strength)
    if strength == 1:
        return taught
    kernels = scaled_kernels(cross_attention_kernels(base["unet"]), cross_attention_kernels(taught.unet), strength)
    low_rank = taught.low_rank and {name: (down, strength * up) for name, (down, up) in taught.low_rank.items()}
    return dataclasses.replace(taught.with_unet(kernels), low_rank=low_rank)
