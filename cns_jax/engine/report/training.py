"""How the training went, for the report: curves of the losses, and where the time went."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cns_jax.engine.report.figures import Line, Look, key, line_chart

_BINS = 40  # points a lesson in the curves
_PARTS = {
    "load": "loading the model",
    "encode": "encoding the pictures",
    "priors": "making prior images",
    "select": "choosing neurons",
    "train": "the lessons",
    "save": "saving what was learned",
    "sample": "drawing sample sheets",
    "evaluate": "the evaluation",
}


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, as many as are whole; none without the file."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the line that a kill cut short
            continue
    return rows


def losses(names: Sequence[str], metrics: Sequence[Mapping[str, Any]], steps: int) -> dict[str, Any] | None:
    """The curves of all lessons, one after another; None without metrics."""
    looks = {"concept_loss": Look("#0072B2"), "prior_loss": Look("#E69F00"), "l_reg": Look("#555555")}
    lines: dict[str, list[Line]] = {name: [] for name in looks}
    for index, name in enumerate(names):
        rows = [row for row in metrics if row["part"] == name]
        for field, look in looks.items():
            points = [(index + row["step"] / steps, row[field]) for row in rows if field in row]
            points = [p for p in points if math.isfinite(p[1])]
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
    }


def _binned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    groups = np.array_split(np.asarray(points), min(_BINS, len(points)))
    return [(float(x), float(y)) for x, y in (group.mean(axis=0) for group in groups)]


def seconds_of(timings: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(name, seconds), without what the others contain."""
    return [(k, float(v)) for k, v in timings.items() if k != "compile" and isinstance(v, int | float) and v > 0]


def durations(timings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section on timings shows; None if nothing was timed."""
    parts = seconds_of(timings)
    if not parts:
        return None
    longest = max(seconds for _, seconds in parts)
    order = {name: i for i, name in enumerate(_PARTS)}
    parts.sort(key=lambda part: order.get(part[0], len(order)))
    compiling = timings.get("compile", 0)
    return {
        "parts": [(_PARTS.get(k, k), duration(s), f"{100 * s / longest:.1f}") for k, s in parts],
        "total": duration(sum(s for _, s in parts)),
        "compile": duration(compiling) if compiling else "",
    }


def duration(seconds: float) -> str:
    """ "3 min 4 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
