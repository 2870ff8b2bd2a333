"""The parts of the page: tables and their cells, figures; what people read beside what tables.json keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cns_jax.core.markdown import table_lines
from cns_jax.evals.bootstrap import Estimate
from cns_jax.evals.figures import Series

NOT_YET = "not yet"
YES, NO, UNDECIDED = "yes", "no", "undecided"


class Entry(NamedTuple):
    """A cell of a table: its text, and its value for JSON."""

    text: str
    value: Any = None


@dataclass(frozen=True)
class Table:
    """section: of the page, where the figures of the same section follow; note: how to read it."""

    section: str
    name: str
    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[Entry]]

    def markdown(self) -> list[str]:
        """Its lines; without rows, a line that says so."""
        body = table_lines(self.head, ([cell.text for cell in row] for row in self.rows))
        body = body if self.rows else ["Not yet: there are no such runs."]
        return [f"### {self.title}", "", self.note, "", *body, ""]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: values in the order of the columns."""
        return {"title": self.title, "columns": list(self.head), "rows": [[c.value for c in row] for row in self.rows]}


def word(text: str) -> Entry:
    """A name, or a number as the paper prints it."""
    return Entry(text, text)


def count(items: Sequence[Any]) -> Entry:
    """How many."""
    return Entry(str(len(items)), len(items))


def number(value: float | None, digits: int = 1, unit: str = "") -> Entry:
    """One number; "not yet" for None and NaN."""
    if value is None or not math.isfinite(value):
        return Entry(NOT_YET)
    return Entry(f"{value:.{digits}f}{unit}", value)


def spread(found: Estimate | None, digits: int = 1, signed: bool = False) -> Entry:
    """A mean with its interval; signed: of a difference."""
    if not found:
        return Entry(NOT_YET)
    return Entry(f"{'+' if signed and found.mean >= 0 else ''}{found.text(digits=digits)}", as_json(found))


def as_json(found: Estimate) -> dict[str, float | None]:
    """NaN as None."""
    return {k: None if math.isnan(v) else v for k, v in found._asdict().items()}


def verdict(gain: Estimate | None) -> str:
    """Whether a difference is above 0: decided where its interval leaves out 0."""
    if gain is None:
        return NOT_YET
    if math.isnan(gain.low) or gain.low <= 0 <= gain.high:
        return UNDECIDED
    return YES if gain.low > 0 else NO


def decided(gain: Estimate | None) -> Entry:
    """A difference with its interval and verdict."""
    if gain is None:
        return Entry(NOT_YET)
    told = verdict(gain)
    return Entry(f"{spread(gain, signed=True).text} {told}", as_json(gain) | {"better": told})


@dataclass(frozen=True)
class Figure:
    """One drawn figure. section: of the page; row: figures of one row stand side by side; reading: one sentence on how
    to read it; data: its numbers, for JSON."""

    section: str
    row: str
    file: Path
    reading: str
    data: Mapping[str, Any]


def series_of(found: Sequence[Estimate | None], scale: float = 1.0) -> Series:
    """Means and intervals; gaps where nothing was measured."""
    rows = [one or Estimate(math.nan, math.nan, math.nan, 0) for one in found]
    return Series(*([scale * getattr(row, side) for row in rows] for side in ("mean", "low", "high")))


def measured(series: Mapping[str, Series]) -> bool:
    return any(math.isfinite(y) for one in series.values() for y in one.y)


def numbers_of(series: Mapping[str, Series], at: Sequence[Any]) -> dict[str, Any]:
    """For JSON: NaN as None."""
    found: dict[str, Any] = {"at": list(at)}
    for name, one in series.items():
        sides = {"y": one.y, "low": one.low, "high": one.high}
        found[name] = {k: [None if math.isnan(v) else v for v in values] for k, values in sides.items() if values}
    return found
