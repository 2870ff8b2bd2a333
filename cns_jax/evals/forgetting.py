"""What a continual run learned and forgot, from the scores of every concept after every stage."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Forgetting:
    """Summary of the matrix s[k, j], score of concept j after stage k (both from 0; higher is better; T the last).

    average: A = mean over j of s[T, j], what the finished model is worth (Lopez-Paz & Ranzato 2017,
    arXiv:1706.08840: ACC).
    learning: mean over j of s[j, j], what each concept was worth when it was new (learning accuracy, plasticity;
    Riemer et al. 2019, arXiv:1810.11910).
    backward_transfer: mean over j < T of s[T, j] - s[j, j]; negative if it was lost (Lopez-Paz & Ranzato 2017: BWT).
    forgetting: mean over j < T of max over j <= k < T of s[k, j], minus s[T, j] (Chaudhry et al. 2018,
    arXiv:1801.10112; there k begins at 0, but a concept has no score before it is learned).
    retention: s[T, 0] / s[0, 0], the share of the first concept that is left; NaN if s[0, 0] is 0.
    first: s[k, 0] for every k (Fig. 5 of CNS). plasticity: s[j, j] for every j.
    NaN: backward_transfer and forgetting of a single concept; entries of `first` that were not measured.
    """

    average: float
    learning: float
    backward_transfer: float
    forgetting: float
    retention: float
    first: tuple[float, ...]
    plasticity: tuple[float, ...]

    @classmethod
    def of(cls, matrix: Any) -> Forgetting:
        """matrix: as in `by_concept`, whose errors it raises."""
        terms = by_concept(matrix)
        means = {name: float(np.mean(values)) if values else math.nan for name, values in terms.items()}
        final, new = terms["average"], terms["learning"]
        return cls(
            **means,
            retention=final[0] / new[0] if new[0] else math.nan,
            first=tuple(np.array(matrix, np.float64)[:, 0].tolist()),
            plasticity=new,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: curves as lists, None for NaN."""
        plain = dataclasses.asdict(self)
        return {k: [json_number(x) for x in v] if isinstance(v, tuple) else json_number(v) for k, v in plain.items()}


def by_concept(matrix: Any) -> dict[str, tuple[float, ...]]:
    """Of each concept, what `Forgetting`'s fields of the same names are the means of.

    matrix: (stages, concepts), square. NaN where nothing was measured; above the diagonal nothing is read. Between
    diagonal and last row, gaps are left out of the maximum. Raises ValueError if the matrix is not square or if the
    diagonal or the last row has gaps.
    """
    s = np.array(matrix, np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not s.size:
        raise ValueError(f"the matrix must be (stages, concepts) with one stage a concept, got {s.shape}")
    last, new = s[-1], s.diagonal()
    gaps = [f"s[{j}, {j}]" for j in np.flatnonzero(~np.isfinite(new))]
    gaps += [f"s[{len(s) - 1}, {j}]" for j in np.flatnonzero(~np.isfinite(last[:-1]))]
    if gaps:
        raise ValueError(f"not measured, but needed: {', '.join(gaps)}")
    best = np.asarray([np.nanmax(s[j:-1, j]) for j in range(len(s) - 1)])
    terms = {
        "average": last,
        "learning": new,
        "backward_transfer": (last - new)[:-1],
        "forgetting": best - last[:-1],
    }
    return {name: tuple(values.tolist()) for name, values in terms.items()}


def json_number(value: float) -> float | None:
    """For JSON, which has no NaN: None instead."""
    return None if math.isnan(value) else value
