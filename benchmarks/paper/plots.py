"""The figures of the paper and our own beside them, from finished runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.paper.entries import Figure, measured, numbers_of, series_of
from benchmarks.paper.extras import attributes_kept, by_order, by_ratio
from benchmarks.paper.lines import (
    FOUND,
    MEASURES,
    VARIANTS,
    Run,
    Sample,
    at_end,
    control_kept,
    estimate,
    gather,
    of_concepts,
    of_runs,
    pick,
    variants,
)
from benchmarks.paper.reasons import NAMES
from benchmarks.paper.stage_plots import matrix, stages
from benchmarks.paper.tables import KINDS, gain, told, transfer_gain
from cns_jax.evals.bootstrap import Estimate
from cns_jax.evals.figures import bars, curves, heat_map

_NAN = math.nan


def draw(runs: Sequence[Run], folder: Path) -> list[Figure]:
    """Every figure that the runs allow, as PNG and SVG."""
    return [
        *_ablations(runs, folder),
        *_differences(runs, folder),
        *stages(runs, folder),
        *matrix(runs, folder),
        *_control(runs, folder),
        *_orders(runs, folder),
        *_thresholds(runs, folder),
    ]


def _ablations(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    named = variants(runs)
    series = {
        name: series_of([estimate(gather(own, FOUND, at_end(kind))) for own in named.values()], 0.01)
        for kind, name in KINDS.items()
    }
    if measured(series):
        file = bars(
            folder / "ablation_found", list(named), series, percent=True, show_values=True,
            title="Does the picture show what was asked for?",
            subtitle="After all lessons: pictures in which the judge sees every concept of the prompt.",
            y_label="pictures, found",
        )  # fmt: skip
        reading = "Higher is better; whiskers: 95 % intervals of each mean by itself."
        yield Figure("ablation", "ablation", file, reading, numbers_of(series, list(named)))


def _differences(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    others = [v for v in list(VARIANTS)[1:] if pick(runs, "main", v)]
    names = [VARIANTS[v] for v in others]
    for measure in MEASURES:
        series = {
            f"at the end, {name}": series_of([gain(runs, v, kind, measure) for v in others])
            for kind, name in KINDS.items()
        }
        series["kept since its lesson"] = series_of([transfer_gain(runs, v, measure) for v in others])
        if measured(series):
            file = bars(
                folder / f"differences_{measure.field}", names, series, horizontal=True, show_values=False,
                title=f"CNS against its variants: {measure.label}",
                subtitle="Paired on the same sets, seeds, prompts and noise, after all lessons.",
                y_label=f"CNS minus the variant, points of {measure.label}",
            )  # fmt: skip
            reading = f"{measure.label}: CNS is better where the whole whisker lies right of 0."
            yield Figure("differences", "differences", file, reading, numbers_of(series, names))


def _control(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    attributes, kept = attributes_kept(runs)
    if attributes:
        values = [[v / 100 for v in row] for row in kept.values()]
        limits = min(0.8, float(np.nanmin(values))), 1.0
        file = heat_map(
            folder / "control", values, list(kept), [NAMES[a] for a in attributes], percent=True, limits=limits,
            title="What is left of the base model's control?",
            subtitle="Prompts without any concept, after all lessons: share of pictures that show each attribute as "
            "asked for, in per cent of the base model's.",
            color_label="of the base model",
        )  # fmt: skip
        data = {name: [None if math.isnan(v) else v for v in row] for name, row in kept.items()}
        reading = "100 is the untouched model; the darker, the better."
        yield Figure("zero_shot", "control", file, reading, {"at": attributes, **data})


def _orders(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    found = by_order(runs)
    sets = sorted({place for place, _ in found})
    series = {}
    for order in sorted({order for _, order in found}):
        rows = []
        for place in sets:
            values = [s.value for s in of_runs(found.get((place, order), []), told(FOUND, "average"))] or [_NAN]
            rows.append(Estimate(float(np.mean(values)), min(values), max(values), len(values)))
        series[f"begun with concept {order + 1}"] = series_of(rows, 0.01)
    if measured(series):
        names = [f"set {place}" for place in sets]
        file = bars(
            folder / "orders", names, series, percent=True,
            title="Does the order of lessons matter?",
            subtitle="CNS: mean over all concepts after all lessons; whiskers: the range over seeds.",
            y_label="pictures, found",
        )  # fmt: skip
        reading = "Bars of one set are the same concepts in other orders; the whiskers are what chance does."
        yield Figure("orders", "orders", file, reading, numbers_of(series, names))


def _thresholds(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    found = by_ratio(runs)
    wanted: dict[str, Callable[[list[Run]], list[Sample]]] = {
        "found, right after the lesson": lambda own: of_concepts(own, FOUND, "learning"),
        "found, at the end": lambda own: of_concepts(own, FOUND, "average"),
        "control, of the base model": lambda own: of_runs(own, control_kept),
    }
    series = {
        name: series_of([estimate(samples(own)) for own in found.values()], 0.01) for name, samples in wanted.items()
    }
    if len(found) > 1 and measured(series):
        file = curves(
            folder / "thresholds", list(found), series, percent=True, markers=True, y_range=(0, None),
            ticks={ratio: f"{100 * ratio:.0f} %" for ratio in found},
            title="How many neurons should be selected?",
            subtitle="CNS with other thresholds; the method's is 30 %. Bands: 95 % intervals.",
            x_label="threshold: inputs that every output unit keeps", y_label="share",
        )  # fmt: skip
        reading = "The gap between the curves of found is forgetting; what control lacks of 100 %, the base model lost."
        yield Figure("threshold", "thresholds", file, reading, numbers_of(series, list(found)))
