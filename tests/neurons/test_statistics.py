from __future__ import annotations

import numpy as np
import pytest

from cns_jax.core.tree import flatten
from cns_jax.neurons.calibration import DIVERSE_PROMPTS, draw
from cns_jax.neurons.select import concept_neurons, constant, count, intersect, selected
from cns_jax.neurons.statistics import describe, iou, overlaps, share


def tree(*bits: int) -> dict:
    return {"a": {"kernel": np.array(bits[:2], bool)[:, None]}, "b": {"kernel": np.array(bits[2:], bool)[:, None]}}


def test_iou_by_hand():
    one, two, three = tree(1, 1, 0, 0), tree(1, 0, 1, 0), tree(1, 0, 0, 1)
    assert iou([one, two]) == 1 / 3
    assert iou([one, two, three]) == 1 / 4
    assert iou([one, one]) == 1
    assert iou([tree(0, 0, 0, 0)] * 2) == 0
    assert overlaps([one, two, three]) == {"pairwise_iou": pytest.approx(1 / 3), "joint_iou": 1 / 4}
    assert overlaps([one]) == {"pairwise_iou": 0.0, "joint_iou": 0.0}


def test_shares_and_counts(masks):
    mask = masks(0)
    total = sum(leaf.size for leaf in flatten(mask).values())
    assert share(mask) == count(mask) / total


def test_what_the_ledger_says(kernels, norms):
    ratio, weights = 0.3, kernels()
    found = concept_neurons(weights, norms(0, 2), norms(1, 3), ratio)
    m_reg = intersect(found.concept, constant(weights, True))
    row = describe(found, found.concept, m_reg, ratio)
    assert all(type(v) is float for v in row.values())
    one = selected(weights, norms(1, 1), ratio)
    # 4 of 16 inputs, not 0.3 * 16
    assert row["selected_share"] == share(one) == 0.25
    assert row["general_of_selected"] == pytest.approx(count(found.general) / count(one))
    assert row["neurons"] == row["regularized"] == count(found.concept)
    assert row["mask_share"] == share(found.concept) and row["base_share"] == share(found.base)
    assert row["regularized_of_mask"] == 1.0


def test_one_calibration_prompt_shares_all_of_its_selection(kernels, norms):
    found = concept_neurons(kernels(), norms(0, 2), norms(1, 1), 0.3)
    assert describe(found, found.concept, found.concept, 0.3)["general_of_selected"] == 1.0


def test_the_shipped_prompts_are_a_hundred_different_short_ones():
    assert len(DIVERSE_PROMPTS) == len(set(DIVERSE_PROMPTS)) == 100
    assert all(len(prompt) < 50 and prompt == prompt.strip() for prompt in DIVERSE_PROMPTS)


def test_prompts_are_drawn_by_seed_without_repeats():
    first = draw(DIVERSE_PROMPTS, 20, 0)
    assert len(set(first)) == 20 and set(first) <= set(DIVERSE_PROMPTS)
    assert first == draw(DIVERSE_PROMPTS, 20, 0) != draw(DIVERSE_PROMPTS, 20, 1)
    assert sorted(draw(("a", "b"), 20, 0)) == ["a", "b"]
