"""Where a run's neurons lie and how far its concepts share them, counted from the snapshots' packed masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cns_jax.engine.pages.report.charts import Bar
from cns_jax.neurons.analysis import intersections, ones, pairwise_iou
from cns_jax.neurons.layers import layer_of, network_order
from cns_jax.weights.snapshot import packed_masks


@dataclass(frozen=True)
class Counted:
    """iou_cc: of every pair of concepts; neurons: of every concept; weights: of all K/V kernels; layers: in the
    network's order."""

    iou_cc: np.ndarray
    neurons: Sequence[int]
    weights: int
    layers: Sequence[Bar]


def count_neurons(files: Sequence[Path]) -> Counted:
    """Count the masks of snapshots, kernel by kernel: of one kernel at a time all masks are held, as bits.

    Raises WeightsMismatch if a file is missing or cut short, KeyError if they are of different models.
    """
    total_cc, weights = np.zeros((len(files), len(files)), np.int64), 0
    shares: dict[str, dict[str, np.ndarray]] = {}
    for name, size, bits_cw in packed_masks(files):
        total_cc += intersections(bits_cw)
        weights += size
        layer, kind = name.removesuffix(".kernel").rsplit(".", 1)
        shares.setdefault(layer, {})[kind] = ones(bits_cw) / size
    layers = [
        Bar(layer_of(layer), _spread(of["to_k"]), _spread(of["to_v"]))
        for layer, of in sorted(shares.items(), key=lambda item: network_order(item[0]))
    ]
    return Counted(pairwise_iou(total_cc), [int(n) for n in np.diagonal(total_cc)], weights, layers)


def _spread(shares_c: np.ndarray) -> tuple[float, float, float]:
    return float(shares_c.mean()), float(shares_c.min()), float(shares_c.max())
