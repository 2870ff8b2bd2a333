"""The table of a run's evaluation, a row a picture, and what it says: matrices, forgetting, leakage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cns_jax.evals.clip_scores import best_of, clip_score
from cns_jax.evals.forgetting import Forgetting, json_number

SINGLE, TOGETHER, PLAIN = "single", "together", "plain"
FIELDS = ("clip_i", "clip_t", "found")


@dataclass(frozen=True)
class Score:
    """One picture. stage: how many concepts the model had learned; concepts: indices of those the prompt asks for.

    kind: SINGLE or TOGETHER for a prompt of one or of several tokens; PLAIN for a single prompt without its token.
    clip_i: mean cosine with the concepts' pictures; clip_t: cosine with the prompt without tokens (see `clip_score`);
    found: 1.0 if the judge sees every concept asked for, 0.0 if not, NaN where there is no judge. details: single
    attributes by the judge.
    """

    stage: int
    kind: str
    prompt: str
    concepts: tuple[int, ...]
    seed: int
    clip_i: float
    clip_t: float
    found: float
    details: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; NaN as None."""
        rounded = {"clip_i": round(self.clip_i, 5), "clip_t": round(self.clip_t, 5), "found": json_number(self.found)}
        return asdict(self) | rounded | {"details": {k: json_number(v) for k, v in self.details.items()}}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Score:
        """Back from JSON."""
        details = {k: _number(v) for k, v in row["details"].items()}
        return cls(**{**row, "concepts": tuple(row["concepts"]), "found": _number(row["found"]), "details": details})


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def matrix(scores: Sequence[Score], field: str, concepts: int) -> np.ndarray:
    """Mean of `field` over the single prompts of concept j after stage k + 1: float64 (stages, concepts), NaN where
    nothing was measured."""
    out = np.full((concepts, concepts), math.nan)
    for k in range(concepts):
        for j in range(k + 1):
            cell = [getattr(s, field) for s in scores if (s.stage, s.kind, s.concepts) == (k + 1, SINGLE, (j,))]
            out[k, j] = np.mean(cell) if cell else math.nan
    return out


def mean(scores: Sequence[Score], field: str, kind: str, stage: int) -> float:
    """Mean of `field` over the pictures of one kind and stage; NaN if there are none."""
    cell = [getattr(s, field) for s in scores if s.kind == kind and s.stage == stage]
    return float(np.mean(cell)) if cell else math.nan


def best(scores: Sequence[Score], kind: str, stage: int) -> dict[str, float]:
    """The paper's best of n pictures a prompt: means over prompts of CLIP-I and CLIP-T, cosines; empty if none."""
    prompts = dict.fromkeys(s.prompt for s in scores if s.kind == kind and s.stage == stage)
    groups = [[s for s in scores if (s.kind, s.stage, s.prompt) == (kind, stage, p)] for p in prompts]
    if not groups:
        return {}
    clip_i = np.asarray([[s.clip_i for s in group] for group in groups])
    cosine = np.asarray([[s.clip_t for s in group] for group in groups])
    index = best_of(clip_i, clip_score(cosine)).index_p
    rows = np.arange(len(groups))
    return {"clip_i": float(clip_i[rows, index].mean()), "clip_t": float(cosine[rows, index].mean())}


def summary(scores: Sequence[Score], concepts: int) -> dict[str, Any]:
    """Everything that the tables and figures of one run need, for JSON.

    Per field: the matrix, its `Forgetting`, the mean over prompts of several concepts, and over prompts without a
    token, before any lesson and at the end (found there at the end: leakage).
    """
    judged = any(not math.isnan(s.found) for s in scores)
    out: dict[str, Any] = {}
    for field in FIELDS if judged else FIELDS[:2]:
        cells = matrix(scores, field, concepts)
        out[field] = {
            "matrix": [[json_number(float(x)) for x in row] for row in cells],
            **Forgetting.of(cells).as_dict(),
            "together": json_number(mean(scores, field, TOGETHER, concepts)),
            "plain_before": json_number(mean(scores, field, PLAIN, 0)),
            "plain_after": json_number(mean(scores, field, PLAIN, concepts)),
        }
    return out | {"best": {kind: best(scores, kind, concepts) for kind in (SINGLE, TOGETHER)}}
