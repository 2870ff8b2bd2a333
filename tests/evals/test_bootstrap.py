"""Bootstrap intervals: against the normal theory where it holds, and how clusters widen them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cns_jax.evals.bootstrap import Estimate, difference, interval


def grid(runs: int, prompts: int, images: int = 1) -> tuple[list[int], list[int]]:
    """Labels of values in the order run, prompt, image."""
    index = np.indices((runs, prompts, images)).reshape(3, -1)
    return index[0].tolist(), index[1].tolist()


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_text() -> None:
    assert Estimate(0.7491, 0.7312, 0.7639, 35).text(scale=100) == "74.9 [73.1, 76.4]"
    assert Estimate(1.5, math.nan, math.nan, 1).text(digits=2) == "1.50"


def test_one_run_is_the_usual_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(5, 2, 100)
    found = interval(values, ["a"] * 100, list(range(100)), resamples=8000)
    half = 1.96 * values.std() / 10
    assert found.mean == pytest.approx(values.mean()) and found.n == 100
    assert found.low == pytest.approx(values.mean() - half, abs=0.05)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05)
    narrow = interval(values, ["a"] * 100, list(range(100)), resamples=8000, confidence=0.68)
    assert width(narrow) == pytest.approx(width(found) * 0.9945 / 1.96, rel=0.05)


def test_many_images_of_a_prompt_are_no_new_evidence() -> None:
    prompts = np.random.default_rng(2).normal(size=20)
    once = interval(prompts, *grid(1, 20))
    often = interval(np.repeat(prompts, 50), *grid(1, 20, 50))
    assert width(often) == pytest.approx(width(once)) and often.n == 1000


def test_spread_between_runs_is_seen() -> None:
    runs = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0], 30) + 1e-3 * np.random.default_rng(3).normal(size=150)
    found = interval(runs, *grid(5, 30))
    assert width(found) == pytest.approx(2 * 1.96 * np.sqrt(2 / 5), rel=0.15)
    one = interval(runs, [0] * 150, list(range(150)))
    assert width(one) < width(found) / 2


def test_shared_prompts_keep_hard_prompts_hard() -> None:
    """Every run the same: within runs the spread of prompts averages out over runs, shared it does not."""
    prompts = np.random.default_rng(4).normal(size=40)
    values = np.tile(prompts, 4)
    one, shared = interval(prompts, *grid(1, 40)), interval(values, *grid(4, 40), shared_prompts=True)
    assert width(shared) == pytest.approx(width(one), rel=0.1)
    assert width(interval(values, *grid(4, 40))) == pytest.approx(width(one) / 2, rel=0.15)


def test_runs_with_fewer_prompts() -> None:
    runs, prompts = [0] * 3 + [1], ["a", "b", "c", "b"]
    # a quarter of the resamples each has only run 0 (1) or only run 1 (5), half has both: (3 * 1 + 1 * 5) / 4
    found, middle = (interval([1.0, 1.0, 1.0, 5.0], runs, prompts, confidence=c) for c in (0.95, 0.3))
    assert found.mean == 2 and found.low == 1 and found.high == 5
    assert middle.low == middle.high == 2
    with pytest.raises(ValueError, match="run 1 lacks some of the 3 prompts"):
        interval([1.0, 1.0, 1.0, 5.0], runs, prompts, shared_prompts=True)


def test_the_order_of_prompts_does_not_matter_and_seeds_repeat() -> None:
    runs, prompts = grid(3, 10)
    values = np.random.default_rng(5).normal(size=30)
    found = interval(values, runs, prompts, shared_prompts=True)
    assert interval(values, runs, prompts, shared_prompts=True) == found
    assert interval(values, runs, prompts, shared_prompts=True, seed=1).low != found.low
    mixed = [*range(10), *range(19, 9, -1), *range(20, 30)]  # the prompts of run 1 in another order
    moved = interval(values[mixed], [runs[i] for i in mixed], [prompts[i] for i in mixed], shared_prompts=True)
    assert moved == pytest.approx(found)


def test_a_single_cluster_has_no_interval() -> None:
    found = interval([1.0, 3.0], ["a", "a"], ["p", "p"])
    assert found.mean == 2 and math.isnan(found.low) and found.text() == "2.0"


def test_difference_is_paired() -> None:
    hard = np.random.default_rng(6).normal(0, 5, 60)
    found = difference(hard + 1, hard, *grid(2, 30))
    assert found.mean == pytest.approx(1) and width(found) < 1e-9
    assert difference(hard, hard + 1, *grid(2, 30)).mean == pytest.approx(-1)
    assert width(interval(hard, *grid(2, 30))) > 1


@pytest.mark.parametrize(
    ("values", "runs", "prompts"),
    [([1.0, math.nan], [0, 0], [0, 1]), ([1.0], [0, 0], [0]), ([], [], []), ([[1.0]], [0], [0])],
)
def test_refused(values, runs, prompts) -> None:
    with pytest.raises(ValueError):
        interval(values, runs, prompts)


def test_difference_refuses_other_lengths() -> None:
    with pytest.raises(ValueError, match="paired"):
        difference([1.0, 2.0], [1.0], [0, 0], [0, 1])
