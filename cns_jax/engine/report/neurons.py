"""Where a run's neurons lie and how far its concepts share them, counted from the snapshots' packed masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cns_jax.engine.report.figures import Bar
from cns_jax.neurons.analysis import intersections, ones, pairwise_iou
from cns_jax.weights.snapshot import packed_masks

_PLACE = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.(?:transformer_blocks\.(\d+)\.)?")
_ORDER = {"down": 0, "mid": 1, "up": 2}


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
        Bar(_place(layer)[1], _spread(of["to_k"]), _spread(of["to_v"]))
        for layer, of in sorted(shares.items(), key=lambda item: _place(item[0]))
    ]
    return Counted(pairwise_iou(total_cc), [int(n) for n in np.diagonal(total_cc)], weights, layers)


def _spread(shares_c: np.ndarray) -> tuple[float, float, float]:
    return float(shares_c.mean()), float(shares_c.min()), float(shares_c.max())


def _place(layer: str) -> tuple[tuple[int, ...], str]:
    """Where a layer comes in the network, and what it is called: "down 1.2", "middle", "up 3.1"."""
    found = _PLACE.match(layer)
    if found is None:
        return (9,), layer
    part, *numbers = found.groups()
    block, attention, inner = (int(n or 0) for n in numbers)
    label = "middle" if part == "mid" else f"{part} {block + 1}.{attention + 1}"
    return (_ORDER[part], block, attention, inner), label + (f".{inner + 1}" if inner else "")
