"""The paper's numbers on neuron masks (Fig. 3, Fig. 7, supplement 9.1 to 9.4) from the packed bits of every kernel.

Axes: p prompts, w words of packed bits, c concepts, g concepts of a group, q edited queries, r orders, d draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

from cns_jax.neurons.analysis import (
    all_of,
    expected_surviving,
    frequency,
    intersections,
    ones,
    pairwise_iou,
    surviving,
)
from cns_jax.neurons.layers import layer_of

PAPER = {"always selected": 0.53, "concept mask": 0.05, "pairwise IoU": 0.24, "joint IoU": 0.02}
"""Always selected: of one prompt's selection; concept mask: of K/V; joint: of the seven concepts of a set."""


@dataclass(frozen=True)
class Questions:
    """What is asked: indices into one list of prompts.

    pools: whose always-selected share is followed, prompt by prompt; orders: how many random orders of them show how
    much it varies (0: none). calibration: the
    prompts of the general mask. lists: other calibration lists to put in its place, each as one or more draws.
    groups: group -> concept -> its captions. queries: the edited prompts.
    """

    pools: Mapping[str, Sequence[int]]
    calibration: Sequence[int]
    lists: Mapping[str, Sequence[Sequence[int]]]
    groups: Mapping[str, Mapping[str, Sequence[int]]]
    queries: Sequence[int]
    orders: int = 20
    seed: int = 0

    @property
    def concepts(self) -> tuple[str, ...]:
        """All concepts, group by group."""
        return tuple(name for group in self.groups.values() for name in group)

    def order_of(self, pool: str) -> np.ndarray:
        """The random orders of a pool: positions (r, p), no prompt twice."""
        rng = np.random.default_rng(self.seed)
        count = len(self.pools[pool])
        return np.asarray([rng.permutation(count) for _ in range(self.orders)], np.int64).reshape(-1, count)


class Counts(NamedTuple):
    """Numbers of weights in one kernel, or summed over kernels; a pytree of integers.

    selected: by one prompt. frequency: pool -> by exactly 0, 1, ... of its prompts. surviving: pool -> (r, p). base_c,
    chosen_c: of every concept (eq. 4, eq. 6); concept_c: of its mask, the chosen one unless another was given;
    differing_c: where these two differ. shared: group -> (g, g). joint: group -> in all and in any of its masks. lists:
    list -> general (d), chosen (d, c), and of these also chosen with the default calibration (d, c).
    """

    weights: int
    selected: int
    general: int
    frequency: dict[str, np.ndarray]
    surviving: dict[str, np.ndarray]
    queries_qq: np.ndarray
    base_c: np.ndarray
    chosen_c: np.ndarray
    concept_c: np.ndarray
    differing_c: np.ndarray
    shared: dict[str, np.ndarray]
    joint: dict[str, np.ndarray]
    lists: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def count_kernel(weights: int, bits_pw: np.ndarray, ask: Questions, masks_cw: np.ndarray | None = None) -> Counts:
    """The counts of a kernel of `weights` weights, of which prompt p selects bits_pw[p].

    masks_cw: the concepts' masks if they are known already, of a run for instance; else they are selected here.
    """
    captions = [indices for group in ask.groups.values() for indices in group.values()]
    base_cw = np.stack([all_of(bits_pw[list(indices)]) for indices in captions])
    general_w = all_of(bits_pw[list(ask.calibration)])
    chosen_cw = base_cw & ~general_w
    masks_cw = chosen_cw if masks_cw is None else masks_cw
    shared, joint, start = {}, {}, 0
    for group, members in ask.groups.items():
        part_gw = masks_cw[start : start + len(members)]
        shared[group] = intersections(part_gw)
        joint[group] = np.asarray([ones(all_of(part_gw)), ones(np.bitwise_or.reduce(part_gw, axis=0))])
        start += len(members)
    return Counts(
        weights=weights,
        selected=int(ones(bits_pw[0])),
        general=int(ones(general_w)),
        frequency={name: frequency(bits_pw[list(p)], weights) for name, p in ask.pools.items()},
        surviving={name: surviving(bits_pw[list(p)], ask.order_of(name)) for name, p in ask.pools.items()},
        queries_qq=intersections(bits_pw[list(ask.queries)]),
        base_c=ones(base_cw),
        chosen_c=ones(chosen_cw),
        concept_c=ones(masks_cw),
        differing_c=ones(masks_cw ^ chosen_cw),
        shared=shared,
        joint=joint,
        lists={name: _with_list(bits_pw, draws, base_cw, chosen_cw) for name, draws in ask.lists.items()},
    )


def _with_list(
    bits_pw: np.ndarray, draws: Sequence[Sequence[int]], base_cw: np.ndarray, default_cw: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = []
    for indices in draws:
        general_w = all_of(bits_pw[list(indices)])
        concept_cw = base_cw & ~general_w
        rows.append((ones(general_w), ones(concept_cw), ones(concept_cw & default_cw)))
    general_d, concept_dc, common_dc = (np.stack(column) for column in zip(*rows, strict=True))
    return general_d, concept_dc, common_dc


def summed(counts: Sequence[Counts]) -> Counts:
    """The counts of all kernels together."""
    return jax.tree.map(lambda *values: sum(values), *counts)


@dataclass(frozen=True)
class Spread:
    """A mean with the range it was taken over."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Any) -> Spread:
        """Mean, lowest and highest."""
        values = np.asarray(values, np.float64)
        return cls(float(values.mean()), float(values.min()), float(values.max()))


@dataclass(frozen=True)
class Curve:
    """Always-selected share after 1, 2, ... prompts: the mean over all orders, the 5th and the 95th percentile of the
    random ones (None without any)."""

    mean: list[float]
    low: list[float] | None
    high: list[float] | None


@dataclass(frozen=True)
class Overlap:
    """IoU of the masks of a group's concepts: every pair, mean over pairs, all together; None for one concept alone.

    by_chance: the same for random masks of these sizes.
    """

    concepts: list[str]
    matrix: list[list[float]]
    pairwise: float | None
    joint: float | None
    pairwise_by_chance: float | None
    joint_by_chance: float | None


@dataclass(frozen=True)
class CalibrationList:
    """General mask and concept masks (shares of K/V) with another calibration list, over its draws and all concepts.

    iou: of a concept's mask with the one of the default list.
    """

    prompts: int
    draws: int
    general: Spread
    concept: Spread
    iou: Spread


@dataclass(frozen=True)
class Layers:
    """The mean over concepts of the share of a layer's keys and values in the mask, with the range over concepts."""

    keys: dict[str, Spread]
    values: dict[str, Spread]


@dataclass(frozen=True)
class Statistics:
    """Everything that one choice of positions and ratio gives. Shares are of all K/V weights unless said otherwise.

    selected: by one prompt. always: pool -> share of one prompt's selection. general_of_selected: that of the
    calibration prompts. similarity, similarity_iou: of the edited queries (q, q): what two selections share over the
    size of one, and over their union. base, concept, differing: of every concept; differing: from the masks that a run
    has stored.
    """

    positions: str
    ratio: float
    weights: int
    selected: float
    general: float
    general_of_selected: float
    always: dict[str, Curve]
    similarity: list[list[float]]
    similarity_iou: list[list[float]]
    base: dict[str, float]
    concept: dict[str, float]
    differing: dict[str, float]
    overlaps: dict[str, Overlap]
    lists: dict[str, CalibrationList]
    layers: Layers

    @property
    def four(self) -> dict[str, float | None]:
        """The statistics that the paper gives, in the order of PAPER; overlaps are means over groups."""
        pairs = [o.pairwise for o in self.overlaps.values() if o.pairwise is not None]
        joint = [o.joint for o in self.overlaps.values() if o.joint is not None]
        values = (
            self.general_of_selected,
            float(np.mean(list(self.concept.values()))),
            float(np.mean(pairs)) if pairs else None,
            float(np.mean(joint)) if joint else None,
        )
        return dict(zip(PAPER, values, strict=True))


def statistics(positions: str, ratio: float, kernels: Mapping[str, Counts], ask: Questions) -> Statistics:
    """The statistics from the counts of every kernel, by its dotted name."""
    total = summed(list(kernels.values()))
    n, names = total.weights, ask.concepts

    def by_concept(counts_c: np.ndarray) -> dict[str, float]:
        return {name: float(count / n) for name, count in zip(names, counts_c, strict=True)}

    return Statistics(
        positions=positions,
        ratio=ratio,
        weights=n,
        selected=total.selected / n,
        general=total.general / n,
        general_of_selected=total.general / total.selected,
        always={pool: _curve(total, pool) for pool in ask.pools},
        similarity=(total.queries_qq / total.selected).tolist(),
        similarity_iou=pairwise_iou(total.queries_qq).tolist(),
        base=by_concept(total.base_c),
        concept=by_concept(total.concept_c),
        differing=by_concept(total.differing_c),
        overlaps={g: _overlap(list(m), total.shared[g], total.joint[g], n) for g, m in ask.groups.items()},
        lists={name: _list(draws, total.lists[name], total) for name, draws in ask.lists.items()},
        layers=_layers(kernels),
    )


def _curve(total: Counts, pool: str) -> Curve:
    mean_p = expected_surviving(total.frequency[pool]) / total.selected
    if len(total.surviving[pool]) == 0:
        return Curve(mean_p.tolist(), None, None)
    low_p, high_p = np.percentile(total.surviving[pool] / total.selected, (5, 95), axis=0)
    return Curve(mean_p.tolist(), low_p.tolist(), high_p.tolist())


def _overlap(concepts: list[str], shared_gg: np.ndarray, joint: np.ndarray, weights: int) -> Overlap:
    matrix_gg, share_g = pairwise_iou(shared_gg), np.diagonal(shared_gg) / weights
    if len(concepts) == 1:
        return Overlap(concepts, matrix_gg.tolist(), None, None, None, None)

    def chance(shares: np.ndarray) -> float:
        return float(np.prod(shares) / max(1 - np.prod(1 - shares), 1e-12))

    pairs = list(combinations(range(len(concepts)), 2))
    return Overlap(
        concepts,
        matrix_gg.tolist(),
        float(np.mean([matrix_gg[i, j] for i, j in pairs])),
        float(joint[0] / max(joint[1], 1)),
        float(np.mean([chance(share_g[[i, j]]) for i, j in pairs])),
        chance(share_g),
    )


def _list(draws: Sequence[Sequence[int]], counts: Any, total: Counts) -> CalibrationList:
    general_d, chosen_dc, common_dc = counts
    union_dc = chosen_dc + total.chosen_c - common_dc
    return CalibrationList(
        len(draws[0]),
        len(draws),
        Spread.of(general_d / total.weights),
        Spread.of(chosen_dc / total.weights),
        Spread.of(common_dc / np.maximum(union_dc, 1)),
    )


def _layers(kernels: Mapping[str, Counts]) -> Layers:
    keys: dict[str, Spread] = {}
    values: dict[str, Spread] = {}
    for name, counts in kernels.items():
        side = keys if ".to_k." in name else values
        side[layer_of(name)] = Spread.of(counts.concept_c / counts.weights)
    return Layers(keys, values)
