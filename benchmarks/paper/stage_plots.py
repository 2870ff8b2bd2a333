"""Curves over the lessons: Fig. 5 of the paper, what is still learned, and everything known so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper.entries import Figure, measured, numbers_of, series_of
from benchmarks.paper.lines import (
    ATTRIBUTES,
    FOUND,
    MEASURES,
    Run,
    Where,
    concept_at,
    estimate,
    gather,
    known_at,
    pick,
    variants,
)
from cns_jax.evals.figures import PALETTE, Series, figure, heat_map

_LABELS = {
    "found": "found by the judge, %",
    "attributes": "attributes seen by the judge, %",
    "clip_i": "CLIP-I (100 x cosine)",
    "clip_t": "CLIP-T (250 x cosine)",
}


def _first(stage: int) -> Where:
    return concept_at(stage, 0)


def _new(stage: int) -> Where:
    return concept_at(stage, stage - 1)


_CURVES: Mapping[str, tuple[Callable[[int], Where], str, str, str]] = {
    "first": (_first, "Fig. 5: is the first concept kept?", "lessons so far", "flat is kept, falling is forgotten"),
    "new": (_new, "Is each lesson still learned?", "lesson", "each concept right after its own lesson; flat is good"),
    "known": (known_at, "All concepts so far.", "lessons so far", "mean over all concepts known by then"),
}


def stages(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    """A row of figures a measure."""
    named = variants(runs)
    last = max((run.last for own in named.values() for run in own), default=0)
    at = range(1, last + 1)
    for measure in MEASURES:
        drawn = {
            name: {
                label: series_of([estimate(gather(own, measure, where(k))) for k in at]) for label, own in named.items()
            }
            for name, (where, *_) in _CURVES.items()
        }
        if last < 2 or not measured(drawn["first"]):
            continue
        for name, series in drawn.items():
            _, title, x_label, reading = _CURVES[name]
            subtitle = f"{reading[0].upper()}{reading[1:]}. Whiskers: 95 % intervals."
            whole = (0.0, 102.0) if measure in (FOUND, ATTRIBUTES) else _range(list(series.values()))
            file = folder / f"{name}_{measure.field}.png"
            with figure(file.with_suffix(""), title, subtitle) as axes:
                _draw(axes, at, series, whole)
                axes.set_xlabel(x_label)
                axes.set_ylabel(_LABELS[measure.field])
            yield Figure("stages", measure.field, file, f"{title} {measure.label}: {reading}.", numbers_of(series, at))


def _draw(axes: Any, at: Sequence[int], series: Mapping[str, Series], whole: tuple[float, float]) -> None:
    """Curves beside each other with whiskers, each with its name at its end."""
    ends = {}
    for i, (label, one) in enumerate(series.items()):
        x = np.asarray(at) + 0.07 * (i - (len(series) - 1) / 2)
        y, low, high = (np.asarray(side, float) for side in (one.y, one.low, one.high))
        axes.vlines(x, low, high, color=PALETTE[i], linewidth=1)
        axes.plot(x, y, color=PALETTE[i], linewidth=2.6 if i == 0 else 1.6, marker="o", markersize=4)
        if np.isfinite(y).any():
            ends[label] = float(y[np.isfinite(y)][-1]), PALETTE[i]
    places = apart([y for y, _ in ends.values()], 0.06 * (whole[1] - whole[0]))
    for (label, (y, color)), place in zip(ends.items(), places, strict=True):
        axes.annotate(
            label, (at[-1] + 0.2, y), (at[-1] + 0.55, place), color=color, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7},
        )  # fmt: skip
    axes.set_xticks(list(at))
    axes.set_xlim(at[0] - 0.3, at[-1] + 0.25)
    axes.set_ylim(*whole)
    axes.grid(axis="y")


def apart(values: Sequence[float], room: float) -> list[float]:
    """The values, moved as little as it takes to be `room` apart, in the same order."""
    order = np.argsort(values, kind="stable")
    steps = room * np.arange(len(values))
    wanted = np.asarray(values, float)[order] - steps  # may not fall from one to the next: isotonic regression
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([float(value)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks]) + steps if blocks else steps
    out = np.empty(len(values))
    out[order] = placed
    return out.tolist()


def _range(series: Sequence[Series]) -> tuple[float, float]:
    """All of the curves and whiskers, with some room."""
    values = [v for one in series for side in (one.y, one.low, one.high) for v in side or () if math.isfinite(v)]
    room = 0.05 * (max(values) - min(values)) or 1.0
    return min(values) - room, max(values) + room


def matrix(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    """CNS: a row a stage, a column a concept."""
    own = pick(runs, "main")
    last = max((run.last for run in own), default=0)
    cells = [[estimate(gather(own, FOUND, concept_at(k, j))) for j in range(last)] for k in range(1, last + 1)]
    values = [[one.mean / 100 if one else math.nan for one in row] for row in cells]
    if last > 1 and np.isfinite(values).any():
        places = [str(j + 1) for j in range(last)]
        file = heat_map(
            folder / "matrix_found", values, places, places, percent=True, limits=(0.0, 1.0),
            title="CNS: every concept after every lesson", subtitle="Mean over sets and seeds.",
            x_label="concept, in the order of lessons", y_label="lessons so far", color_label="found by the judge",
        )  # fmt: skip
        data = {"found": [[None if math.isnan(v) else v for v in row] for row in values]}
        yield Figure("forgetting", "matrix", file, "Down a column: what becomes of one concept, in per cent.", data)
