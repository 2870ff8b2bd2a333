"""Parameters without training or a minute of compiling."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from cns_jax.core.tree import map_named


def random_params(model: Any) -> Any:
    """Parameters like those of `model.init`, which takes a minute to compile."""
    rng = np.random.default_rng(0)

    def leaf(name: str, spec: jax.ShapeDtypeStruct) -> np.ndarray:
        noise = rng.normal(size=spec.shape).astype(np.float32)
        if name.endswith("scale"):
            return 1 + 0.1 * noise
        fan_in = max(int(np.prod(spec.shape[:-1])), 1)
        return noise * np.float32(0.1 if name.endswith("bias") else fan_in**-0.5)

    return map_named(leaf, jax.eval_shape(model.init, jax.random.key(0)))
