"""From pictures' scores to a run's figures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cns_jax.evals.score_table import score_table
from cns_jax.evals.scores import PLAIN, SINGLE, TOGETHER, Score, best, matrix, summary


def score(stage: int, concept: int, found: float, kind: str = SINGLE, prompt: str = "", clip_i: float = 0.5) -> Score:
    concepts = (concept,) if kind != TOGETHER else (0, 1)
    return Score(stage, kind, prompt or f"p{concept}", concepts, 0, clip_i, 0.3, found, {"scene": math.nan})


SCORES = [
    score(0, 0, 0.0, PLAIN),
    score(0, 1, 1.0, PLAIN),
    score(1, 0, 1.0),
    score(1, 0, 0.0, clip_i=0.7),
    score(2, 0, 0.0),
    score(2, 1, 1.0),
    score(2, 0, 0.0, PLAIN),
    score(2, 1, 0.0, PLAIN),
    score(2, 0, 1.0, TOGETHER, "both"),
]


def test_matrix() -> None:
    cells = matrix(SCORES, "found", 2)
    np.testing.assert_array_equal(cells, [[0.5, math.nan], [0.0, 1.0]])
    assert matrix(SCORES, "clip_i", 2)[0, 0] == 0.6


def test_summary() -> None:
    out = summary(SCORES, 2)
    assert out["found"]["matrix"] == [[0.5, None], [0.0, 1.0]]
    assert out["found"]["learning"] == 0.75 and out["found"]["average"] == 0.5 and out["found"]["retention"] == 0
    assert (out["found"]["together"], out["found"]["plain_before"], out["found"]["plain_after"]) == (1.0, 0.5, 0.0)
    assert json.loads(json.dumps(out, allow_nan=False)) == out


def test_intervals_hold_the_means() -> None:
    rows = [score(1, 0, float(i % 3 > 0), prompt=f"p{i}") for i in range(12)]
    out = summary(rows, 1)["found"]
    low, high = out["intervals"]["average"]
    assert 0 < low < out["average"] < high < 1
    assert out["intervals"]["together"] == [None, None]


def test_attributes_and_others_are_told_when_new_and_at_the_end() -> None:
    """Of what was measured only: a concept has no pattern where it is a scene."""
    rows = [
        Score(stage, SINGLE, "p", (0,), 0, 0.5, 0.3, 1.0, {"pattern": pattern, "scene": math.nan}, others)
        for stage, pattern, others in ((1, 1.0, 0.2), (1, math.nan, 0.4), (2, 0.0, 0.6))
    ] + [Score(2, SINGLE, "p1", (1,), 0, 0.5, 0.3, 1.0, {"pattern": math.nan, "scene": math.nan})]
    out = summary(rows, 2)
    assert out["attributes"]["pattern"] == {"new": 1.0, "end": 0.0}
    assert out["attributes"]["scene"] == {"new": None, "end": None}
    assert math.isclose(out["others"]["new"], 0.3) and out["others"]["end"] == 0.6


@pytest.mark.parametrize(
    ("details", "share"),
    [
        ({"color": 1.0, "pattern": 0.0, "quirk": 1.0, "second": 0.0}, 0.5),
        ({"color": 1.0, "eyes": 0.0, "scene": math.nan}, 1.0),  # what nobody can tell does not count
        ({"scene": math.nan}, math.nan),
        ({}, math.nan),
    ],
)
def test_the_share_of_a_concepts_attributes(details: dict[str, float], share: float) -> None:
    score = Score(1, SINGLE, "p", (0,), 0, 0.5, 0.3, 1.0, details)
    assert score.attributes == pytest.approx(share, nan_ok=True)


def test_the_table_has_the_scales_of_the_papers() -> None:
    value = {
        "summary": summary(SCORES, 2), "num": 1,
        "zero_shot": {
            "unchanged": 0.9, "clip_t": {"before": 0.8, "after": 0.7},
            "control": {"before": {"scene": 1.0, "quirk": None}, "after": {"scene": 0.5, "quirk": None}},
        },
        "concepts": [{"name": "tiger_cat"}, {"name": "dog"}],
    }  # fmt: skip
    text = score_table(value)
    row = next(line for line in text.splitlines() if line.startswith("tiger_cat"))
    assert row.split()[1:] == ["60.0", "50.0", "75.0", "75.0", "50.0", "0.0"]  # a cosine of 0.3 is a CLIP-T of 75
    assert "CLIP-T 200.0 before, 175.0 after" in text and "the judge sees 100.0 % before, 50.0 % after" in text
    assert "since its own lesson a concept changed by -10.0 CLIP-I, +0.0 CLIP-T, -50.0 found" in text
    assert "best of 1, single" in text and "unchanged to 0.900" in text and "95 % interval" in text


def test_nobody_judges() -> None:
    unjudged = [Score(**{**s.__dict__, "found": math.nan}) for s in SCORES]
    assert "found" not in summary(unjudged, 2) and "clip_i" in summary(unjudged, 2)


def test_best_of_a_prompt() -> None:
    """The picture with the highest CLIP-I + 2.5 CLIP-T of every prompt, then the mean over prompts."""
    pictures = (("a", 0.5, 0.3), ("a", 0.6, 0.2), ("b", 0.8, 0.2), ("b", 0.9, 0.1))
    rows = [Score(1, SINGLE, prompt, (0,), 0, image, text, 1.0, {}) for prompt, image, text in pictures]
    out = best(rows, SINGLE, 1)
    assert math.isclose(out["clip_i"], 0.65) and math.isclose(out["clip_t"], 0.25)
    assert best(rows, TOGETHER, 1) == {}


def test_there_and_back() -> None:
    for row in SCORES:
        back = Score.of(json.loads(json.dumps(row.as_dict(), allow_nan=False)))
        assert back.as_dict() == row.as_dict() and math.isnan(back.details["scene"])
