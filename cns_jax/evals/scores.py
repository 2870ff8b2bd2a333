"""The table of a run's evaluation, a row a picture, and what it says: matrices, forgetting, leakage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cns_jax.evals.bootstrap import interval
from cns_jax.evals.clip_scores import best_of, clip_score
from cns_jax.evals.forgetting import Forgetting, json_number

SINGLE, TOGETHER, PLAIN = "single", "together", "plain"
FIELDS = ("clip_i", "clip_t", "found", "dino_i")
UNSURE = ("eyes",)
"""Attributes that the miniature's judge tells badly: it sees odd eyes in 4 to 71 % of real renders."""
TABLE_SCALES = {"clip_i": 100.0, "clip_t": 250.0, "found": 100.0, "dino_i": 100.0}
"""From means to what tables print, here and in the papers: CLIP-T is 100 x 2.5 x cosine (see `clip_score`)."""


@dataclass(frozen=True)
class Score:
    """One picture. stage: how many concepts the model had learned; concepts: indices of those the prompt asks for.

    kind: SINGLE or TOGETHER for a prompt of one or of several tokens; PLAIN for a single prompt without its token.
    clip_i: mean cosine with the concepts' pictures; clip_t: cosine with the prompt without tokens (see `clip_score`);
    found: 1.0 if the judge sees every concept asked for, 0.0 if not, NaN where there is no judge. details: single
    attributes of the concepts by the judge. clip_i_others: clip_i with the run's concepts that the prompt does not ask
    for; dino_i: as clip_i, by DINO; NaN where there are none.
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
    clip_i_others: float = math.nan
    dino_i: float = math.nan

    @property
    def attributes(self) -> float:
        """Share of the attributes (kind, colour, ...) that the judge sees on all concepts asked for, but for UNSURE;
        NaN where it tells none."""
        told = [v for name, v in self.details.items() if name not in UNSURE and not math.isnan(v)]
        return float(np.mean(told)) if told else math.nan

    def as_dict(self) -> dict[str, Any]:
        """For JSON; NaN as None."""
        numbers = {name: json_number(round(getattr(self, name), 5)) for name in (*FIELDS, "clip_i_others")}
        return asdict(self) | numbers | {"details": {k: json_number(v) for k, v in self.details.items()}}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Score:
        """Back from JSON."""
        numbers = {name: _number(row[name]) for name in (*FIELDS, "clip_i_others")}
        details = {k: _number(v) for k, v in row["details"].items()}
        return cls(**{**row, **numbers, "concepts": tuple(row["concepts"]), "details": details})


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
    index = best_of(clip_i, clip_score(cosine))
    rows = np.arange(len(groups))
    return {"clip_i": float(clip_i[rows, index].mean()), "clip_t": float(cosine[rows, index].mean())}


def summary(scores: Sequence[Score], concepts: int) -> dict[str, Any]:
    """Everything that the tables and figures of one run need, for JSON.

    Per field that was measured: the matrix, its `Forgetting`, the mean over prompts of several concepts, over prompts
    without a token before any lesson and at the end (found there at the end: leakage), and 95 % bootstrap intervals
    over prompts of the means "learning", "average" and "together". best: see `best`. attributes: see
    `attributes_shown`; others: clip_i_others, likewise.
    """
    ends = _ends(scores, concepts)
    together = [s for s in scores if s.kind == TOGETHER]
    out: dict[str, Any] = {}
    for field in FIELDS:
        if all(math.isnan(getattr(s, field)) for s in scores):
            continue
        cells = matrix(scores, field, concepts)
        out[field] = {
            "matrix": [[json_number(float(x)) for x in row] for row in cells],
            **Forgetting.of(cells).as_dict(),
            "together": json_number(mean(scores, field, TOGETHER, concepts)),
            "plain_before": json_number(mean(scores, field, PLAIN, 0)),
            "plain_after": json_number(mean(scores, field, PLAIN, concepts)),
            "intervals": {
                "learning": _interval(ends["new"], field),
                "average": _interval(ends["end"], field),
                "together": _interval(together, field),
            },
        }
    return out | {
        "best": {kind: best(scores, kind, concepts) for kind in (SINGLE, TOGETHER)},
        "attributes": attributes_shown(scores, concepts),
        "others": {when: _mean_of(s.clip_i_others for s in some) for when, some in ends.items()},
    }


def attributes_shown(scores: Sequence[Score], concepts: int) -> dict[str, dict[str, float | None]]:
    """Attribute -> share of the concepts' pictures that show it, "new" right after a concept's lesson and at the "end",
    after all `concepts` lessons; None where it is told of none."""
    ends = _ends(scores, concepts)
    names = dict.fromkeys(name for s in ends["end"] for name in s.details)
    return {name: {when: _mean_of(s.details[name] for s in some) for when, some in ends.items()} for name in names}


def _ends(scores: Sequence[Score], concepts: int) -> dict[str, list[Score]]:
    return {
        "new": [s for s in scores if _new(s)],
        "end": [s for s in scores if s.kind == SINGLE and s.stage == concepts],
    }


def _new(score: Score) -> bool:
    """Of a concept, right after its lesson."""
    return score.kind == SINGLE and score.stage == score.concepts[0] + 1


def _interval(scores: Sequence[Score], field: str) -> list[float | None]:
    """Limits of the mean; None if there are fewer than two prompts."""
    if not scores:
        return [None, None]
    found = interval([getattr(s, field) for s in scores], ["run"] * len(scores), [s.prompt for s in scores])
    return [json_number(found.low), json_number(found.high)]


def _mean_of(values: Iterable[float]) -> float | None:
    measured = [value for value in values if not math.isnan(value)]
    return float(np.mean(measured)) if measured else None
