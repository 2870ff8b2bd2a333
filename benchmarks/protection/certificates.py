"""The certificate against what is measured: how much of a concept is left when its keys and values have moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper.entries import Entry, Table, number, word
from benchmarks.paper.lines import FOUND, Run

LEARNED = 0.5
"""Found in at least so many pictures when it was new: of less there is little to lose, and chance is most of it."""
LOST = 0.75
"""A concept is lost where it is found in fewer pictures than this share of those when it was new: at ten pictures, in
two fewer at least, so that no single picture decides."""

_ROUNDING = 1e-6
_FEW = 5  # cases of either kind, of fewer of which nothing is told


class Point(NamedTuple):
    """A concept after a later lesson. drift: relative change of its keys and values since its own lesson; kept: its
    found score as a share of that when it was new."""

    drift: float
    kept: float


def certified(runs: Iterable[Run]) -> list[Point]:
    """Of every concept after every later lesson that pictures were drawn after."""
    return [point for run in runs for point in _of(run, certificates(run.line))]


def certificates(line: Mapping[str, Any]) -> list[dict[str, float]]:
    """After each lesson: concept -> mean over layers of the relative change since its own."""
    return [{change["name"]: change["mean"] for change in row} for row in line.get("certificate") or []]


def first_concepts(runs: Iterable[Run]) -> list[Point]:
    """Of runs without certificates: the first concept after each lesson, with the sum of what all lessons since its own
    changed, each as a share of the base model's energy; as if they changed it in unrelated ways."""
    found = []
    for run in runs:
        whole = np.cumsum([row["all"] for row in run.line.get("drift") or []])
        first = run.line["concepts"][0]
        found += list(_of(run, [{}, *({first: float(x)} for x in whole)]))
    return found


def _of(run: Run, moved: Sequence[Mapping[str, float]]) -> Iterator[Point]:
    matrix, names = run.matrix(FOUND) / 100, run.line["concepts"]
    for stage, row in enumerate(moved):
        for name, drift in row.items():
            concept = names.index(name)
            new, now = matrix[concept, concept], matrix[stage, concept]
            if new >= LEARNED - _ROUNDING and math.isfinite(now) and drift > 0:
                yield Point(drift, float(now / new))


def running_median(points: Sequence[Point]) -> list[Point]:
    """Medians of the tenth of all points (at least 9) around each, in the order of their drift."""
    ordered = sorted(points)
    half = max(len(ordered) // 20, 4)
    windows = (ordered[i - half : i + half + 1] for i in range(half, len(ordered) - half))
    return [Point(*(float(x) for x in np.median(np.asarray(window), axis=0))) for window in windows]


class Limit(NamedTuple):
    """The drift that best tells concepts that are lost from others, with the shares of lost ones below and above it."""

    drift: float
    below: float
    above: float


def limit_of(points: Sequence[Point]) -> Limit | None:
    """None if fewer than _FEW concepts are lost, or kept. Best: the highest sum of both kinds' shares told rightly."""
    drift, kept = (np.asarray(values) for values in zip(*sorted(points), strict=True)) if points else (np.zeros(0),) * 2
    lost = kept < LOST - _ROUNDING
    if min(lost.sum(), (~lost).sum()) < _FEW:
        return None
    cuts = np.flatnonzero(np.diff(drift) > 0) + 1
    right = [lost[c:].sum() / lost.sum() + (~lost[:c]).sum() / (~lost).sum() for c in cuts]
    if not right:
        return None
    cut = cuts[int(np.argmax(right))]
    return Limit(float(math.sqrt(drift[cut - 1] * drift[cut])), float(lost[:cut].mean()), float(lost[cut:].mean()))


def told(points: Sequence[Point]) -> str:
    """From which drift on a concept is lost, in a sentence."""
    found = limit_of(points)
    if found is None:
        lost = sum(point.kept < LOST - _ROUNDING for point in points)
        return f"{lost} of {len(points)} cases had lost more than a quarter of their score: too few to tell why."
    return (
        f"Of {len(points)} cases, those whose keys and values had moved by less than "
        f"{_percent(found.drift)} since their own lesson had lost more than a quarter of their score in "
        f"{100 * found.below:.0f} % of cases, the others in {100 * found.above:.0f} %. No other drift tells lost "
        "concepts from kept ones better."
    )


def by_drift(points: Sequence[Point]) -> Table:
    """Kept scores in bands of drift."""
    rows = []
    edges = [10.0**e for e in (-math.inf, -4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, math.inf)]
    for low, high in zip(edges, edges[1:], strict=False):
        kept = np.asarray([p.kept for p in points if low <= p.drift < high])
        if len(kept):
            band = f"{_percent(low)} to {_percent(high)}" if 0 < low and high < math.inf else ""
            band = band or (f"below {_percent(high)}" if high < math.inf else f"from {_percent(low)}")
            few = [100 * float(np.quantile(kept, q)) for q in (0.1, 0.5)]
            lost = 100 * float((kept < LOST - _ROUNDING).mean())
            cells = (number(100 * float(kept.mean()), 0), *(number(x, 0) for x in few), number(lost, 0))
            rows.append([word(band), Entry(str(len(kept)), len(kept)), *cells])
    note = (
        "A case is a concept after a later lesson: its found score as a share of that when it was new, by how far its "
        f"keys and values have moved since its own lesson. {told(points)} Ten pictures a score, so the last "
        "column needs two fewer at least. A concept that was found in fewer than half of its pictures when it was new "
        "is left out."
    )
    head = ["moved", "cases", "kept, %: mean", "one in ten keeps less than", "median", "lost more than a quarter, %"]
    return Table("certificate", "by_drift", "Moved and kept", note, head, rows)


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"
