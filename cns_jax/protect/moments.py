"""What is remembered of protected prompts: second moments of their text features, and of the outputs they had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cns_jax.core.tree import flatten

Kernels = Mapping[str, np.ndarray]
"""Dotted name -> kernel (d, out)."""


def second_moment(hidden_bld: np.ndarray) -> np.ndarray:
    """Mean of x x^T over all positions of all prompts, float64 (d, d).

    Padding counts as any other position: a causal encoder puts the whole prompt into it, and attention looks there.
    """
    features_nd = np.asarray(hidden_bld, np.float64).reshape(-1, hidden_bld.shape[-1])
    return features_nd.T @ features_nd / len(features_nd)


class Protected(NamedTuple):
    """All that protection needs of any number of prompts, of a size that does not grow with them.

    moment_dd: C = sum_g w_g C_g over groups g of prompts, each a concept's or the general ones; outputs: dotted kernel
    name -> sum_g w_g C_g W_g (d, out), W_g being the kernels that the group is held to. Of two runs both add.
    """

    moment_dd: np.ndarray
    outputs: Kernels

    @classmethod
    def of(cls, moment_dd: np.ndarray, kernels: Mapping[str, object], weight: float = 1.0) -> Protected:
        """One group of prompts with second moment C_g (d, d), held to `kernels` (d, out), nested or flat."""
        moment = weight * np.asarray(moment_dd, np.float64)
        return cls(moment, {name: moment @ np.asarray(w, np.float64) for name, w in flatten(kernels).items()})

    def __add__(self, other: Protected) -> Protected:  # type: ignore[override]
        """Both groups of prompts."""
        outputs = {name: value + other.outputs[name] for name, value in self.outputs.items()}
        return Protected(self.moment_dd + other.moment_dd, outputs)


def relative_change(moment_dd: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """The energy of what changed in a group's keys or values, as a share of what they had:
    tr((W' - W)^T C (W' - W)) / tr(W^T C W). moment_dd: C; before, after: W, W' (d, out)."""
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    return _energy(moment_dd, change) / max(_energy(moment_dd, np.asarray(before, np.float64)), _TINY)


def _energy(moment_dd: np.ndarray, kernel: np.ndarray) -> float:
    return float(np.sum(kernel * (moment_dd @ kernel)))


_TINY = float(np.finfo(np.float64).tiny)
