"""How much of what was taught is in the weights: W_0 + s (W - W_0), the strength of users' LoRA sliders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cns_jax.core.tree import Tree, flatten, like


def scaled_kernels(base: Mapping[str, Any], kernels: Tree, strength: float) -> Tree:
    """base + strength * (kernels - base), float32, leaf by leaf; at strength 1 `kernels` itself, to the bit.

    base, kernels: the cross-attention K/V kernels before and after, of one structure and shape. A negative strength
    goes the other way. Raises ValueError unless the strength is finite.
    """
    if not np.isfinite(strength):
        raise ValueError(f"strength={strength} is not a number that weights can be scaled by; give one like 0.8")
    if strength == 1:
        return kernels
    before, scale = flatten(base), np.float32(strength)
    scaled = {}
    for name, kernel in flatten(kernels).items():
        start = np.asarray(before[name], np.float32)
        scaled[name] = start + scale * (np.asarray(kernel, np.float32) - start)
    return like(scaled, kernels)
