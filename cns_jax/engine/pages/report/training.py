"""How the training went, for the report: curves of the losses, and where the time went."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cns_jax.engine.pages.report.charts import Line, Look, Part, key, line_chart, time_bars

_BINS = 40  # points a lesson in the curves
_GAP = 0.04  # beside each lesson: one concept's curve does not run on into the next one's
_PARTS = {
    "load": "loading the model",
    "encode": "encoding pictures",
    "priors": "making prior images",
    "select": "choosing weights",
    "protect": "protection",
    "train": "the lessons",
    "save": "saving",
    "sample": "drawing samples",
    "evaluate": "the evaluation",
}


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl that tell a part and its step; none without the file."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the line that a kill cut short
            continue
        if isinstance(row, dict) and isinstance(row.get("part"), str) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def losses(names: Sequence[str], metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The curves of all lessons, one after another, each as wide as the others however long it was; None without
    metrics. missing: the concepts whose lessons have none, as those of the run that this one began after."""
    looks = {"concept_loss": Look("#0072B2"), "prior_loss": Look("#E69F00"), "l_reg": Look("#555555")}
    lines: dict[str, list[Line]] = {name: [] for name in looks}
    for index, name in enumerate(names):
        rows = [row for row in metrics if row["part"] == name]
        steps = max((row["step"] for row in rows), default=0) or 1
        for field, look in looks.items():
            told = [row for row in rows if isinstance(row.get(field), int | float)]
            points = [
                (index + _GAP + (1 - 2 * _GAP) * row["step"] / steps, row[field])
                for row in told
                if math.isfinite(row[field])
            ]
            if points:
                lines[field].append(Line(_binned(points), look))
    if not lines["concept_loss"]:
        return None
    middles = [(i + 0.5, f"{i + 1}") for i in range(len(names))]

    def chart(fields: Sequence[str], title: str) -> Markup:
        some = [line for field in fields for line in lines[field]]
        return line_chart(some, middles, title=title, x_label="lesson", splits=range(len(names) + 1))

    pull = any(value > 0 for line in lines["l_reg"] for _, value in line.points)
    return {
        "chart": chart(("concept_loss", "prior_loss"), "Loss on the concepts' pictures and on prior images"),
        "pull": chart(("l_reg",), "The regularizer's penalty") if pull else None,
        "keys": {field: key(look) for field, look in looks.items()},
        "priors": bool(lines["prior_loss"]),
        "missing": [name for name in names if not any(row["part"] == name for row in metrics)],
    }


def _binned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    groups = np.array_split(np.asarray(points), min(_BINS, len(points)))
    return [(float(x), float(y)) for x, y in (group.mean(axis=0) for group in groups)]


def seconds_of(timings: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(name, seconds), without what the others contain."""
    told = [(k, float(v)) for k, v in timings.items() if k != "compile" and isinstance(v, int | float)]
    return [(k, v) for k, v in told if 0 < v < math.inf]


def durations(timings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section on timings shows; None if nothing was timed."""
    parts = seconds_of(timings)
    if not parts:
        return None
    order = {name: i for i, name in enumerate(_PARTS)}
    parts.sort(key=lambda part: order.get(part[0], len(order)))
    compiling = timings.get("compile", 0)
    bars = [Part(_PARTS.get(name, name), seconds, duration(seconds)) for name, seconds in parts]
    return {
        "chart": time_bars(bars, title="How long the parts of the run took"),
        "total": duration(sum(seconds for _, seconds in parts)),
        "compile": duration(compiling) if isinstance(compiling, int | float) and compiling > 0 else "",
    }


def duration(seconds: float) -> str:
    """ "3 min 4 s"."""
    if seconds < 0.1:
        return "< 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
