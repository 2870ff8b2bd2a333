"""The nearest change of low rank in one basis for all kernels, where "near" counts by what prompts read.

A kernel's keys or values are linear in the text features x, so a change D costs tr(D^T C D) with C = mean of x x^T.
With H = (C + mu I)^(1/2) and the changes of all kernels side by side, D = (D_1 ... D_n) each times its scale, the
truncated singular value decomposition H D = U S V^T gives basis H^-1 U and coefficients U^T H D_k. Their product is
D V V^T: all directions of the basis are the change's own, so that what is kept, over all kernels, moves no prompt
further than the whole does; what a lesson was kept from touching stays untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cns_jax.weights.changes import LowRank

RIDGE = 1e-2  # mu, a share of C's mean eigenvalue: what the prompts of C do not read others may


@dataclass(frozen=True)
class Decomposition:
    """basis_dd: float64, leading directions first; coefficients: dotted kernel name -> (d, out), float64. Their
    products are the changes."""

    basis_dd: np.ndarray
    coefficients: Mapping[str, np.ndarray]

    def cut(self, rank: int, dtype: Any) -> LowRank:
        """The first `rank` directions, with coefficients of `dtype`, each direction's largest being 1: float16 then
        keeps its digits."""
        largest = np.max([np.abs(c[:rank]).max(1, initial=0) for c in self.coefficients.values()], axis=0)
        scale_r = np.where(largest > 0, largest, 1.0)
        cut = {name: (c[:rank] / scale_r[:, None]).astype(dtype) for name, c in self.coefficients.items()}
        return LowRank((self.basis_dd[:, :rank] * scale_r).astype(np.float32), cut)

    def errors(self, kernels: Mapping[str, np.ndarray], moments: Sequence[np.ndarray]) -> np.ndarray:
        """How wrong the first r directions are, float64 (d + 1,) for r = 0 to d: the largest ||X (D - D_r)|| / ||X W||
        of a kernel and a moment X^T X.

        kernels: dotted name -> W (d, out), what the change leads to; moments: (d, d), of text features, one a concept.
        """
        # ||X sum_{i >= r} b_i c_i||^2 is the sum over the block from r on of (B^T X^T X B) * (c c^T), which is
        # symmetric: the rows of its upper half, added up from behind
        seen = [np.triu(self.basis_dd.T @ moment @ self.basis_dd) for moment in moments]
        halves = [2 * upper - np.diag(np.diag(upper)) for upper in seen]
        worst = np.zeros(len(self.basis_dd) + 1)
        for name, c in self.coefficients.items():
            gram = c @ c.T
            for moment, half in zip(moments, halves, strict=True):
                added = np.einsum("rs,rs->r", half, gram)
                left = np.append(np.cumsum(added[::-1])[::-1], 0.0)
                worst = np.maximum(worst, np.sqrt(np.maximum(left, 0.0)) / norm(kernels[name], moment))
        return worst


def norm(kernel: np.ndarray, moment: np.ndarray) -> float:
    """||X W|| from W (d, out) and X^T X (d, d); never zero."""
    squared = float(np.sum(kernel * (moment @ kernel)))
    return max(squared, float(np.finfo(np.float32).tiny)) ** 0.5


def decompose(
    change: Mapping[str, np.ndarray],
    weighing_dd: np.ndarray | None = None,
    scales: Mapping[str, float] | None = None,
    ridge: float = RIDGE,
) -> Decomposition:
    """The directions of a change by their weight: cut at any rank, it is the nearest of that rank in one basis.

    change: dotted kernel name -> D (d, out), of one d; weighing_dd: C, in any unit (None: all directions count alike);
    scales: how much each kernel counts, say 1 / ||X W|| for relative errors (None: alike). No kernel is decomposed by
    itself: two eigendecompositions of (d, d), and products. Raises ValueError for kernels of several widths.
    """
    widths = {len(d) for d in change.values()}
    if len(widths) != 1:
        raise ValueError(f"the kernels read {sorted(widths)} features; one basis holds changes of one width")
    root, inverse = roots(widths.pop(), weighing_dd, ridge)
    weighed = {name: root @ np.asarray(d, np.float64) for name, d in change.items()}
    total = sum((scales[name] if scales else 1.0) ** 2 * (y @ y.T) for name, y in weighed.items())
    directions = np.linalg.eigh(total)[1][:, ::-1]
    return Decomposition(inverse @ directions, {name: directions.T @ y for name, y in weighed.items()})


def factor(moment_dd: np.ndarray, rank: int = 32) -> np.ndarray:
    """F (rank, d) float32 with F^T F near `moment_dd` (d, d): its leading directions, at most d of them."""
    values, vectors = np.linalg.eigh(moment_dd.astype(np.float64))
    kept = slice(None, -min(rank, len(values)) - 1, -1)
    return (np.sqrt(np.maximum(values[kept], 0))[:, None] * vectors[:, kept].T).astype(np.float32)


def roots(d: int, weighing_dd: np.ndarray | None, ridge: float = RIDGE) -> tuple[np.ndarray, np.ndarray]:
    """(C + mu I)^(1/2), C's mean eigenvalue made 1, and its inverse; float64."""
    mean = 0.0 if weighing_dd is None else float(np.trace(weighing_dd)) / d
    if weighing_dd is None or mean <= 0:
        return np.eye(d), np.eye(d)
    values, vectors = np.linalg.eigh(weighing_dd.astype(np.float64) / mean)
    root = np.sqrt(np.maximum(values, 0) + ridge)
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
