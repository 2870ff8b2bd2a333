"""Intervals for means over a few runs and a few prompts: percentile bootstrap over clusters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean of n values with its interval; low and high are NaN where one cluster allows none."""

    mean: float
    low: float
    high: float
    n: int

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """ "74.9 [73.1, 76.4]"; scale=100 for cosines."""
        mean, low, high = (f"{scale * x:.{digits}f}" for x in (self.mean, self.low, self.high))
        return mean if math.isnan(self.low) else f"{mean} [{low}, {high}]"


def interval(
    values: Sequence[float] | np.ndarray,
    runs: Sequence[Hashable],
    prompts: Sequence[Hashable],
    *,
    shared_prompts: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of `values` (n,) and its percentile interval; values of one run and prompt stay together.

    runs, prompts: the labels of each value (a seed; a prompt, with its concept if concepts share prompts). Each
    resample draws runs with replacement, then prompts within each drawn run (Davison & Hinkley 1997, section 3.8,
    hierarchical data). One run: prompts only.
    shared_prompts: instead draw the prompts once a resample, for all its runs (Owen 2007, "The pigeonhole bootstrap").
    Right where every run has the same prompts and the mean should hold for others: a hard prompt is hard in each
    run, which the draw within runs takes for luck that averages out. Needs every prompt in every run.
    Simulated, 3 runs of the same 35 prompts that differ in difficulty: 95 % intervals held the truth in 73 % of cases
    within runs, in 95 % with shared prompts. Where runs differ more than prompts, three runs are too few for either
    (70 %): then give the runs one by one.
    Raises ValueError for values that are not finite, labels that do not fit, or prompts missing in a run.
    """
    cells = _Cells.of(values, runs, prompts, shared_prompts)
    rng = np.random.default_rng(seed)
    run_count, widest = cells.sums_rp.shape
    chosen_br = rng.integers(run_count, size=(resamples, run_count))
    draws = rng.random((1 if shared_prompts else run_count, resamples, widest))
    sums_b, counts_b = np.zeros(resamples), np.zeros(resamples)
    for slot in range(run_count):  # not one array: runs x resamples x prompts may be large
        runs_b1 = chosen_br[:, slot, None]
        width_b1 = cells.width_r[runs_b1]
        picked_bp = (draws[0 if shared_prompts else slot] * width_b1).astype(np.int64)
        used_bp = np.arange(widest) < width_b1  # a run with fewer prompts draws fewer
        sums_b += np.where(used_bp, cells.sums_rp[runs_b1, picked_bp], 0.0).sum(axis=1)
        counts_b += np.where(used_bp, cells.counts_rp[runs_b1, picked_bp], 0.0).sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(sums_b / counts_b, (tail, 1 - tail)) if cells.sums_rp.size > 1 else (math.nan, math.nan)
    total = cells.counts_rp.sum()
    return Estimate(float(cells.sums_rp.sum() / total), float(low), float(high), int(total))


def difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    runs: Sequence[Hashable],
    prompts: Sequence[Hashable],
    *,
    shared_prompts: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of first - second, value by value, with its interval as in `interval`.

    first[i] and second[i] are two methods on the same run, prompt and image seed, so what makes a prompt hard for both
    cancels. Raises ValueError if their lengths differ.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values are needed, got {a.shape} and {b.shape}")
    options = dict(confidence=confidence, resamples=resamples, seed=seed)
    return interval(a - b, runs, prompts, shared_prompts=shared_prompts, **options)  # type: ignore[arg-type]


class _Cells(NamedTuple):
    """Sum and number of values by run and prompt (r, p), and how many of a row's prompts are real (r,)."""

    sums_rp: np.ndarray
    counts_rp: np.ndarray
    width_r: np.ndarray

    @classmethod
    def of(cls, values: Any, runs: Sequence[Hashable], prompts: Sequence[Hashable], shared: bool) -> _Cells:
        values_n = np.asarray(values, np.float64)
        if values_n.ndim != 1 or not len(values_n) == len(runs) == len(prompts):
            raise ValueError(
                f"values {values_n.shape} need a run and a prompt each: {len(runs)} and {len(prompts)} given"
            )
        if not len(values_n) or not np.isfinite(values_n).all():
            raise ValueError("there are no values, or one is NaN or infinite; leave out what was not measured")
        order = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        tables: dict[Hashable, dict[int, list[float]]] = {run: {} for run in runs}
        for value, run, prompt in zip(values_n, runs, prompts, strict=True):
            tables[run].setdefault(order[prompt], []).append(float(value))
        width_r = np.array([len(table) for table in tables.values()])
        if shared and (width_r < len(order)).any():
            short = [run for run, width in zip(tables, width_r, strict=True) if width < len(order)]
            raise ValueError(f"shared_prompts: run {short[0]!r} lacks some of the {len(order)} prompts")
        sums_rp = np.zeros((len(tables), width_r.max()))
        counts_rp = np.zeros_like(sums_rp)
        for r, table in enumerate(tables.values()):
            for p, key in enumerate(sorted(table)):  # a column is the same prompt in every run
                sums_rp[r, p], counts_rp[r, p] = sum(table[key]), len(table[key])
        return cls(sums_rp, counts_rp, width_r)
