"""The scores of an evaluation, one by one: every concept before training, when it was new, and at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cns_jax.engine.pages.report.charts import REFERENCE, Line, Look, line_chart
from cns_jax.engine.pages.report.scores import Measured
from cns_jax.engine.pages.report.told import NOTHING, Told, cells_of, told
from cns_jax.evals.scores import PLAIN, SINGLE, TABLE_SCALES, TOGETHER, Score, matrix, mean

_ATTRIBUTES = {
    "scene": "the scene",
    "style": "the style",
    "subject": "the subject",
    "color": "its colour",
    "pattern": "its pattern",
    "second": "the pattern's colour",
    "quirk": "its oddity",
}
_MEASURES = {
    "found": ("Recognised", "Pictures in which a judge network finds the concept."),
    "clip_i": ("Likeness", "How close pictures are to those the concept was taught with (CLIP-I, of 100)."),
    "clip_t": ("True to the prompt", "How well pictures fit the rest of the prompt (CLIP-T, 100 x 2.5 x cosine)."),
    "dino_i": ("Likeness, by DINO", "The same by a network that was never told what things are (DINO-I, of 100)."),
}


@dataclass(frozen=True)
class Row:
    """before: by the base model, from the same prompts without the token; new: right after its lesson; end: at last."""

    name: str
    before: Told
    new: Told
    end: Told


@dataclass(frozen=True)
class Measure:
    """One score. chart: over the lessons, empty of a single concept; rows: a concept each; sums: means over concepts,
    prompts of several, prompts without a token; forgetting: empty of a single concept."""

    title: str
    meaning: str
    chart: Markup
    rows: tuple[Row, ...]
    sums: tuple[Row, ...]
    forgetting: str


def measures(summary: Mapping[str, Any], scores: Sequence[Score], names: Sequence[str]) -> list[Measure]:
    """A measure for every field that the evaluation's summary has. names: the concepts', for people."""
    return [
        _measure(field, *words, summary[field].get("forgetting"), scores, names)
        for field, words in _MEASURES.items()
        if field in summary
    ]


def _measure(
    field: str, title: str, meaning: str, lost: float | None, scores: Sequence[Score], names: Sequence[str]
) -> Measure:
    count, share = len(names), field == "found"
    scale = 1.0 if share else TABLE_SCALES[field]
    cells = scale * matrix(scores, field, count)
    axis = [(k + 1, f"{k + 1}") for k in range(count)]
    before = scale * mean(scores, field, PLAIN, 0)
    lines = [Line([(axis[0][0], before), (axis[-1][0], before)], REFERENCE)]
    for j in range(count):
        points = [(k + 1, float(cells[k, j])) for k in range(j, count)]
        lines.append(Line([p for p in points if math.isfinite(p[1])], Look.of(j)))
    title_of_chart = f"{title} of every concept after every lesson"
    chart = line_chart(lines, axis, title=title_of_chart, x_label="after lesson", percent=share)
    ones = [Measured(scores, j, count) for j in range(count)]
    return Measure(
        title=title,
        meaning=meaning,
        chart=chart if count > 1 else Markup(""),
        rows=tuple(
            Row(name, *(told(cells, field) for cells in (one.before(field), one.new(field), one.end(field))))
            for name, one in zip(names, ones, strict=True)
        ),
        sums=_sums(field, scores, count),
        forgetting="" if lost is None else f"{100 * lost:.0f}\u00a0%" if share else f"{scale * lost:.1f}",
    )


def _sums(field: str, scores: Sequence[Score], count: int) -> tuple[Row, ...]:
    def of(kind: str, stage: int) -> Told:
        return told(cells_of([s for s in scores if (s.kind, s.stage) == (kind, stage)], field), field)

    new = cells_of([s for s in scores if s.kind == SINGLE and s.stage == s.concepts[0] + 1], field)
    mean_of_all = Row("mean", of(PLAIN, 0), told(new, field), of(SINGLE, count))
    rows = [mean_of_all] if count > 1 else []
    rows.append(Row("several in one prompt", NOTHING, NOTHING, of(TOGETHER, count)))
    rows.append(Row("without its token", of(PLAIN, 0), NOTHING, of(PLAIN, count)))
    return tuple(row for row in rows if row.end is not NOTHING)


def preserved(zero_shot: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of (what, before, after) on prompts without any concept; empty if none were drawn."""
    if not zero_shot:
        return []
    clip = zero_shot["clip_t"]
    before, after = (f"{TABLE_SCALES['clip_t'] * clip[when]:.1f}" for when in ("before", "after"))
    rows = [("true to the prompt (CLIP-T)", before, after)]
    control = zero_shot.get("control", {})
    for name, share in control.get("before", {}).items():
        later = control["after"][name]
        rows.append((f"shows {_ATTRIBUTES.get(name, name)}", f"{100 * share:.0f} %", f"{100 * later:.0f} %"))
    return rows
