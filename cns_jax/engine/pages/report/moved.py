"""What later lessons did to the keys and values of earlier concepts, from the certificates in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from cns_jax.engine.pages.report.charts import Line, Look, line_chart
from cns_jax.protect.certificate import percent

# Shares of their energy. benchmarks/results/protection has what was left of concepts by how far they had moved: of 100
# that had moved by less than 0.3 %, 4 had lost more than a quarter of their score. Without any protection a lesson
# moves them by 400 % and more.
_UNSEEN, _SEEN = 0.003, 0.01


class Moved(NamedTuple):
    """sentences: one a concept, of what it has moved by after the last lesson; chart: the same over all lessons, empty
    of fewer than three."""

    sentences: list[str]
    chart: Markup


def moved(rows: Sequence[Mapping[str, Any]]) -> Moved | None:
    """From the ledger's rows; None if the last one's certificate is missing, as in old versions, or empty, as a first
    lesson's."""
    last = rows[-1].get("certificate")
    if not last:
        return None
    tokens = {row["name"]: row["token"] for row in rows}
    return Moved([_sentence(entry, tokens) for entry in last], _chart(rows) if len(rows) > 2 else Markup(""))


def _sentence(entry: Mapping[str, Any], tokens: Mapping[str, str]) -> str:
    """The base model's concepts are called by their tokens, and have no lesson in this run."""
    token = tokens.get(entry["name"], entry["name"])
    since = "its lesson" if entry["name"] in tokens else "this run began"
    mean, worst = (percent(entry[name]).replace(" %", "\u00a0%") for name in ("mean", "worst"))
    moved = f"{token}’s keys and values moved by {mean} since {since} ({worst} in the worst layer)"
    if entry["mean"] < _UNSEEN:
        return f"{moved}: its pictures should look the same."
    if entry["mean"] < _SEEN:
        return f"{moved}: its pictures may have changed a little."
    return f"{moved}, enough to see it in its pictures."


def _chart(rows: Sequence[Mapping[str, Any]]) -> Markup:
    lines = []
    for index, row in enumerate(rows):
        points = [(index + 1.0, 0.0)]
        for lesson, later in enumerate(rows[index + 1 :], index + 2):
            points += [(float(lesson), e["mean"]) for e in later.get("certificate", ()) if e["name"] == row["name"]]
        if len(points) > 1:
            lines.append(Line(points, Look.of(index)))
    ticks = [(float(lesson), f"{lesson}") for lesson in range(1, len(rows) + 1)]
    title = "How far the keys and values of earlier concepts have moved"
    return line_chart(lines, ticks, title=title, x_label="after lesson", percent=True)
