"""What an evaluation says, in plain words and small charts: was a concept learned, was it kept, what else changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from cns_jax.engine.report.figures import PLASTICITY, Line, Look, line_chart
from cns_jax.evals.bootstrap import Estimate, difference
from cns_jax.evals.scores import PLAIN, SINGLE, TABLE_SCALES, Score

_GOOD, _MIDDLE, _POOR, _PLAIN = "good", "middle", "poor", "plain"
_KEPT = 0.9  # a lasting score of at least this share of the new one
_ATTRIBUTES = {
    "scene": "the scene",
    "style": "the style",
    "subject": "the subject",
    "color": "its colour",
    "pattern": "its pattern",
    "second": "the pattern's colour",
    "quirk": "its oddity",
}


@dataclass(frozen=True)
class Verdict:
    """sentence: what was learned and kept. chips: the same in a word or two, each with its mood for the style sheet."""

    sentence: str
    chips: tuple[tuple[str, str], ...]


class Measured:
    """The scores of one concept, by (prompt, seed), where they were measured."""

    def __init__(self, scores: Sequence[Score], index: int, stages: int) -> None:
        self._scores = [s for s in scores if s.concepts == (index,)]
        self.own, self.last = index + 1, stages

    def cells(self, field: str, kind: str, stage: int) -> dict[tuple[str, int], float]:
        """Of the pictures of one kind and stage."""
        rows = [s for s in self._scores if (s.kind, s.stage) == (kind, stage)]
        found = {(s.prompt, s.seed): float(getattr(s, field)) for s in rows}
        return {where: value for where, value in found.items() if math.isfinite(value)}

    def before(self, field: str) -> dict[tuple[str, int], float]:
        """By the base model, from the same prompts without the token."""
        return self.cells(field, PLAIN, 0)

    def new(self, field: str) -> dict[tuple[str, int], float]:
        """Right after the concept's lesson."""
        return self.cells(field, SINGLE, self.own)

    def end(self, field: str) -> dict[tuple[str, int], float]:
        """After the last lesson."""
        return self.cells(field, SINGLE, self.last)


_Cells = Mapping[tuple[str, int], float]


def _change(before: _Cells, after: _Cells) -> Estimate:
    """after - before at equal prompts and seeds; NaN limits where too few prompts allow none."""
    both = [where for where in after if where in before]
    if not both:
        return Estimate(math.nan, math.nan, math.nan, 0)
    return difference(
        [after[w] for w in both], [before[w] for w in both], ["run"] * len(both), [prompt for prompt, _ in both]
    )


def _likeness(cells: _Cells) -> str:
    return f"{100 * np.mean(list(cells.values())):.0f}".replace("-", "−")


def _shown(cells: _Cells) -> str:
    """ "4 of 5"."""
    return f"{sum(value > 0.5 for value in cells.values())} of {len(cells)}"


def verdict(scores: Sequence[Score], index: int, stages: int) -> Verdict | None:
    """Of concept `index`; None if it was not measured.

    Something has changed if the 95 % interval of the paired difference leaves out 0. "Learned" is what a judge sees;
    a likeness that has grown tells no more than that, and may be far from the concept still.
    """
    one = Measured(scores, index, stages)
    like, seen = one.new("clip_i"), one.new("found")
    if not like:
        return None
    closer = _change(one.before("clip_i"), like)
    shown = _change(one.before("found"), seen)
    before = f", {_likeness(one.before('clip_i'))} before it" if one.before("clip_i") else ""
    told = f"likeness to its pictures {_likeness(like)} of 100 right after the lesson{before}"
    field = "clip_i"
    if seen and shown.low > 0:
        field, chip = "found", ("learned", _GOOD)
        text = f"{_shown(seen)} pictures show it right after its lesson, {_shown(one.before('found'))} before"
    elif closer.low > 0 and seen:
        chip = "on its way", _MIDDLE
        text = f"The pictures have come closer to it, but only {_shown(seen)} show it for certain ({told})"
    elif closer.low > 0:
        chip, text = ("closer", _PLAIN), f"The pictures have come closer to those it was taught with: {told}"
    elif math.isnan(closer.low):  # a single prompt, or no pictures from before
        return Verdict(f"{told[0].upper()}{told[1:]}.", ())
    elif seen:
        text = (
            f"Only {_shown(seen)} pictures show it, and they have not come closer to it ({told}). More steps may help."
        )
        return Verdict(text, (("not learned yet", _POOR),))
    else:
        text = f"The pictures have not come closer to it by more than chance may do ({told}). More steps may help."
        return Verdict(text, (("no clear change", _POOR),))
    later, kept = _later(one, field)
    return Verdict(f"{text}. {later}", (chip, *kept))


def _later(one: Measured, field: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    if one.own == one.last:
        return "It was the last lesson." if one.last > 1 else "", ()
    told, end = (_shown if field == "found" else _likeness), one.end(field)
    if not end:
        return "", ()
    change, now = _change(one.new(field), end), told(end)
    number = one.last - one.own
    after = "one more lesson" if number == 1 else f"{number} more lessons"
    amount = f"{now} still show it" if field == "found" else f"the likeness is {now}"
    left = float(np.mean(list(end.values()))) / max(float(np.mean(list(one.new(field).values()))), 1e-6)
    if left >= _KEPT:
        return f"After {after} {amount}.", (("kept", _GOOD),)
    if change.high < 0:
        less = f"only {now} show it" if field == "found" else f"the likeness has dropped to {now}"
        return f"After {after} {less}.", (("faded", _POOR),)
    return f"After {after} {amount}.", (("partly kept", _MIDDLE),)  # less, but within what chance may do


@dataclass(frozen=True)
class Measure:
    """One score: chart over the lessons, and per concept its value when new and at the end, as texts."""

    title: str
    meaning: str
    chart: Markup
    rows: tuple[tuple[str, str], ...]
    means: tuple[str, str]
    forgetting: str


_MEASURES = {
    "found": ("Recognised", "Pictures in which a judge network finds the concept."),
    "clip_i": ("Likeness", "How close pictures are to those the concept was taught with (CLIP-I, of 100)."),
    "clip_t": ("True to the prompt", "How well pictures fit the rest of the prompt (CLIP-T, 100 x 2.5 x cosine)."),
    "dino_i": ("Likeness, by DINO", "The same by a network that was never told what things are (DINO-I, of 100)."),
}


def measures(summary: Mapping[str, Any]) -> list[Measure]:
    """A measure for every field that the evaluation's summary has."""
    return [
        _measure(name, title, meaning, summary[name]) for name, (title, meaning) in _MEASURES.items() if name in summary
    ]


def _measure(name: str, title: str, meaning: str, found: Mapping[str, Any]) -> Measure:
    scale, shares = (1.0, True) if name == "found" else (TABLE_SCALES[name], False)
    cells = [[math.nan if x is None else scale * x for x in row] for row in found["matrix"]]
    count = len(cells)

    def told(value: float | None) -> str:
        if value is None or math.isnan(value):
            return "–"
        return f"{100 * value:.0f}\u00a0%" if shares else f"{value:.1f}"

    lines = [Line([(j + 1, cells[j][j]) for j in range(count)], PLASTICITY)]
    for j in range(count):
        points = [(k + 1, cells[k][j]) for k in range(j, count)]
        lines.append(Line([p for p in points if math.isfinite(p[1])], Look.of(j)))
    chart = line_chart(
        lines, [(k + 1, f"{k + 1}") for k in range(count)],
        title=f"{title} of every concept after every lesson", x_label="after lesson", percent=shares,
    ) if count > 1 else Markup("")  # fmt: skip
    lost = found["forgetting"]
    return Measure(
        title=title,
        meaning=meaning,
        chart=chart,
        rows=tuple((told(cells[j][j]), told(cells[-1][j])) for j in range(count)),
        means=(told(scale * found["learning"]), told(scale * found["average"])),
        forgetting="" if lost is None else told(scale * lost),
    )


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
