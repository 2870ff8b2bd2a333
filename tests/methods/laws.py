"""What several test files say of weights: compared bit for bit, so that -0.0 and NaN count too."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from cns_jax.core.tree import flatten


def bits(leaf: Any) -> np.ndarray:
    return np.asarray(leaf).view(np.uint32)


def assert_same(a: Any, b: Any) -> None:
    """Two pytrees are equal in every bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def assert_unmoved(before: Any, after: Any, mask: Any) -> None:
    """No bit of a weight outside `mask` differs."""
    after, mask = flatten(after), flatten(mask)
    for name, leaf in flatten(before).items():
        still = ~np.asarray(mask[name])
        assert (bits(leaf) == bits(after[name]))[still].all(), f"{name} moved outside the mask"


def moved(before: Any, after: Any) -> int:
    """How many weights differ."""
    return sum(int((bits(a) != bits(b)).sum()) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))
