"""What a low rank costs: the share of the change that it keeps, and how wrong K and V are on concepts' prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.engine.runs.export.exporter import Exporter
from cns_jax.engine.runs.export.features import Features
from cns_jax.weights.low_rank import approximated

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Cost:
    """energy: the share of the summed squares of the change that is kept; worst_energy: the same of the worst matrix.
    error: the largest |K' - K| / |K| of a layer's keys or values over the prompts' tokens; change: the largest
    |K - K_0| / |K|, which is what training did to them."""

    energy: float
    worst_energy: float
    error: float
    change: float

    def __str__(self) -> str:
        return (
            f"keeps {self.energy:.2%} of the change's energy (of the worst matrix {self.worst_energy:.2%}); on the "
            f"concepts' prompts K and V are wrong by up to {self.error:.2%}, training changed them by up to "
            f"{self.change:.2%}"
        )


def cost_of_rank(export: Exporter, features: Features, tensors: Mapping[str, np.ndarray]) -> Cost:
    """What the file with `tensors` loses of what is exported."""
    text_nd = np.concatenate(features.samples)
    return cost(export.kernels, export.taught, approximated(export.kernels, tensors), text_nd)


def cost(
    base: Mapping[str, Any], kernels: Mapping[str, Any], found: Mapping[str, np.ndarray], text_nd: np.ndarray
) -> Cost:
    """base, kernels: K/V kernels before and after; found: dotted name -> kernel of low rank; text_nd: hidden states."""
    before, after = ({k: np.asarray(v) for k, v in flatten(tree).items()} for tree in (base, kernels))
    lost = [float(np.square(found[name] - kernel).sum()) for name, kernel in after.items()]
    whole = [float(np.square(before[name] - kernel).sum()) for name, kernel in after.items()]
    kept = [1 - a / b for a, b in zip(lost, whole, strict=True) if b] or [1.0]  # nothing taught, nothing lost
    errors, changes = (max(wrong(after, other, text_nd)) for other in (found, before))
    return Cost(1 - sum(lost) / (sum(whole) or 1), min(kept), errors, changes)


def wrong(kernels: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], text_nd: np.ndarray) -> list[float]:
    """||X (W' - W)|| / ||X W|| of every kernel. kernels, found: dotted name -> W, W' (d, out); text_nd: X."""
    errors = []
    for name, kernel in kernels.items():
        size = max(float(np.linalg.norm(text_nd @ kernel)), _TINY)
        errors.append(float(np.linalg.norm(text_nd @ (found[name] - kernel))) / size)
    return errors
