"""The figures of a continual run, by hand on one matrix in which they all differ."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cns_jax.evals.forgetting import Forgetting

NAN = math.nan
MATRIX = np.array(
    [
        [0.80, NAN, NAN, NAN],
        [0.90, 0.60, NAN, NAN],  # the first concept became better before it became worse
        [0.70, 0.50, 0.75, NAN],
        [0.60, 0.65, 0.55, 0.70],  # the second ended better than it began
    ]
)


def test_every_figure() -> None:
    found = Forgetting.of(MATRIX)
    assert found.average == pytest.approx((0.60 + 0.65 + 0.55 + 0.70) / 4)
    assert found.learning == pytest.approx((0.80 + 0.60 + 0.75 + 0.70) / 4)
    assert found.backward_transfer == pytest.approx((-0.20 + 0.05 - 0.20) / 3)
    assert found.forgetting == pytest.approx((0.30 - 0.05 + 0.20) / 3)
    assert found.retention == pytest.approx(0.75)
    assert found.first == pytest.approx((0.80, 0.90, 0.70, 0.60))
    assert found.plasticity == pytest.approx((0.80, 0.60, 0.75, 0.70))


def test_nothing_changes_nothing_is_forgotten() -> None:
    found = Forgetting.of(np.tile([0.5, 0.6, 0.7], (3, 1)))
    assert found.backward_transfer == found.forgetting == 0 and found.retention == 1
    assert found.average == found.learning == pytest.approx(0.6)


def test_what_stands_above_the_diagonal_is_not_read() -> None:
    filled = np.where(np.isnan(MATRIX), 9.0, MATRIX)
    assert Forgetting.of(filled) == Forgetting.of(MATRIX)


def test_stages_between_may_be_missing() -> None:
    gaps = MATRIX.copy()
    gaps[1, 0] = gaps[2, 1] = NAN
    found = Forgetting.of(gaps)
    assert found.forgetting == pytest.approx((0.20 - 0.05 + 0.20) / 3)
    assert found.as_dict()["first"] == [0.80, None, 0.70, 0.60]


@pytest.mark.parametrize(("where", "named"), [((1, 1), r"s\[1, 1\]"), ((3, 2), r"s\[3, 2\]"), ((3, 3), r"s\[3, 3\]$")])
def test_what_is_needed_must_be_there(where: tuple[int, int], named: str) -> None:
    gaps = MATRIX.copy()
    gaps[where] = NAN
    with pytest.raises(ValueError, match=named):
        Forgetting.of(gaps)


@pytest.mark.parametrize("shape", [(3, 2), (3,), (0, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one stage a concept"):
        Forgetting.of(np.ones(shape))


def test_one_concept_as_json() -> None:
    found = Forgetting.of([[0.5]]).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["backward_transfer"] is None and found["forgetting"] is None
    assert found["average"] == found["learning"] == 0.5 and found["retention"] == 1


def test_nothing_learned_leaves_no_share() -> None:
    assert Forgetting.of([[0.0, NAN], [0.1, 0.5]]).as_dict()["retention"] is None
