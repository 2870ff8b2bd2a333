"""Counts and overlaps of neuron masks: the paper's four statistics and more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import jax
import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.neurons.select import NeuronMask, Selection, count
from cns_jax.neurons.top import kept


def share(mask: NeuronMask) -> float:
    """Selected weights as a share of all weights of the mask's leaves."""
    return count(mask) / max(sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(mask)), 1)


def iou(masks: Sequence[NeuronMask]) -> float:
    """Intersection over union of any number of masks; 0 where the union is empty."""
    both = either = 0
    for leaves in zip(*(flatten(m).values() for m in masks), strict=True):
        stack = np.stack([np.asarray(leaf) for leaf in leaves])
        both += int(stack.all(0).sum())
        either += int(stack.any(0).sum())
    return both / either if either else 0.0


def overlaps(masks: Sequence[NeuronMask]) -> dict[str, float]:
    """Mean pairwise IoU, and the IoU of all masks together (0.24 and 0.02 for seven concepts in the paper)."""
    pairs = [iou(pair) for pair in combinations(masks, 2)]
    return {"pairwise_iou": float(np.mean(pairs)) if pairs else 0.0, "joint_iou": iou(masks) if pairs else 0.0}


def describe(selection: Selection, mask: NeuronMask, m_reg: NeuronMask, ratio: float) -> dict[str, float]:
    """What a run's ledger says of one concept's mask.

    selected_share: what one prompt selects, as a share of K/V (the ratio, rounded down to whole inputs);
    general_of_selected: share of it that all calibration prompts select too (paper: 0.53); mask_share: the mask
    as a share of K/V (paper: 0.05); regularized: its weights that earlier concepts have as well.
    """
    leaves = jax.tree.leaves(mask)
    selected = sum(kept(leaf.shape[0], ratio) * leaf.shape[1] for leaf in leaves)
    return {
        "neurons": float(count(mask)),
        "mask_share": share(mask),
        "selected_share": selected / sum(leaf.size for leaf in leaves),
        "base_share": share(selection.base),
        "general_share": share(selection.general),
        "general_of_selected": count(selection.general) / selected,
        "regularized": float(count(m_reg)),
        "regularized_of_mask": count(m_reg) / max(count(mask), 1),
    }
