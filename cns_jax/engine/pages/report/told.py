"""A few pictures' scores in words: a mean or a share, its 95 % interval, and how far from a reference it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cns_jax.evals.bootstrap import Estimate, difference, interval
from cns_jax.evals.scores import TABLE_SCALES, Score
from cns_jax.evals.shares import share

ENOUGH = 5
"""Pictures that an interval needs, and a word such as "learned" too: fewer are told as they are."""

Cells = Mapping[tuple[str, int], float]
"""Values by (prompt, seed)."""


@dataclass(frozen=True)
class Told:
    """What a page says of some pictures. value: "87 %", "2 of 3" or "61"; interval: "62 to 96 %", or empty; at, low,
    high: the same from 0 to 100, for a scale, NaN where there is none; count: of pictures, "13 of 15 pictures"."""

    value: str
    interval: str = ""
    count: str = ""
    at: float = math.nan
    low: float = math.nan
    high: float = math.nan


NOTHING = Told("–")


def cells_of(rows: Sequence[Score], field: str) -> dict[tuple[str, int], float]:
    """A field of some pictures, where it was measured."""
    found = {(s.prompt, s.seed): float(getattr(s, field)) for s in rows}
    return {where: value for where, value in found.items() if math.isfinite(value)}


def told(cells: Cells, field: str) -> Told:
    """Of a field's values. found: as a share; the others on the scale of the tables."""
    if not cells:
        return NOTHING
    prompts, values = [prompt for prompt, _ in cells], list(cells.values())
    if field == "found":
        count = f"{shown(cells)} pictures"
        if len(values) < ENOUGH:
            return Told(shown(cells), "", "pictures, too few for an interval", 100 * float(np.mean(values)))
        found, scale, unit = share(values, prompts), 100.0, "\u00a0%"
    else:
        count = f"{len(values)} pictures"
        enough = len(values) >= ENOUGH
        found = interval(values, ["run"] * len(values), prompts) if enough else _alone(values)
        scale, unit = TABLE_SCALES[field], ""
    at, low, high = (scale * x for x in found[:3])
    limits = "" if math.isnan(low) else f"{number(low)} to {number(high)}{unit}"
    return Told(f"{number(at)}{unit}", limits, count, at, low, high)


def number(value: float) -> str:
    """A whole number, with a minus sign that is one."""
    return f"{value:.0f}".replace("-0", "0").replace("-", "−")


def shown(cells: Cells) -> str:
    """ "4 of 5"."""
    return f"{sum(value > 0.5 for value in cells.values())} of {len(cells)}"


def change(before: Cells, after: Cells) -> Estimate:
    """after - before at equal prompts and seeds; NaN limits where pictures are too few, or all of one prompt."""
    both = [where for where in after if where in before]
    if not both:
        return Estimate(math.nan, math.nan, math.nan, 0)
    if len(both) < ENOUGH:
        return _alone([after[w] - before[w] for w in both])
    return difference(
        [after[w] for w in both], [before[w] for w in both], ["run"] * len(both), [prompt for prompt, _ in both]
    )


def _alone(values: Sequence[float]) -> Estimate:
    """A mean without an interval."""
    return Estimate(float(np.mean(values)), math.nan, math.nan, len(values))
