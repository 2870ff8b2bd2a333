"""Shares of pictures and their intervals."""

from __future__ import annotations

import math

import pytest

from cns_jax.evals.bootstrap import interval
from cns_jax.evals.shares import share


def wilson(share: float, n: int) -> tuple[float, float]:
    """The published formula (Wilson 1927), written out."""
    z = 1.959964
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@pytest.mark.parametrize(("hits", "n"), [(5, 5), (0, 5), (3, 5), (13, 15), (1, 1)])
def test_one_picture_a_prompt_is_wilsons(hits: int, n: int) -> None:
    found = share([1.0] * hits + [0.0] * (n - hits), range(n))
    assert (found.mean, found.n) == (hits / n, n)
    low, high = wilson(hits / n, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))
    assert found.low <= found.mean <= found.high and found.high - found.low > 0.1


def test_several_pictures_a_prompt_are_no_more_trials() -> None:
    """Twenty pictures of five prompts that all agree say no more than five."""
    prompts = [i // 4 for i in range(20)]
    found = share([1.0] * 20, prompts)
    assert (found.low, found.high) == pytest.approx((share([1.0] * 5, range(5)).low, 1.0)) and found.n == 20
    mixed = [float(i % 4 < i // 4) for i in range(20)]
    assert share(mixed, prompts) == interval(mixed, ["run"] * 20, prompts)


def test_what_is_no_share_is_refused() -> None:
    for values in ([0.5, 1.0], [math.nan, 1.0], []):
        with pytest.raises(ValueError):
            share(values, range(len(values)))
