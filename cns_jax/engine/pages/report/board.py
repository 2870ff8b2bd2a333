"""The report's first screen: a sentence on the whole run, and its few numbers, each beside what it must be held to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cns_jax.engine.pages.report.told import ENOUGH, Cells, Told, cells_of, change, number, shown, told
from cns_jax.evals.bootstrap import interval
from cns_jax.evals.scores import PLAIN, SINGLE, TOGETHER, Score
from cns_jax.evals.shares import share

UNTRUSTED = (
    "Whether your pictures were learned, no score here can tell: the miniature was taught on drawings of 64 x 64 "
    "pixels, and its CLIP says little about anything else. Compare the pictures by eye."
)


@dataclass(frozen=True)
class Entry:
    """A number. reference: what to hold it to, in words; mark: the same on the scale, NaN where it has no place there;
    less: whether less is better."""

    what: str
    told: Told
    reference: str
    mark: float = math.nan
    less: bool = False


@dataclass(frozen=True)
class Board:
    """What the first screen says of the whole run."""

    sentence: str
    entries: tuple[Entry, ...]


class _Run:
    """The cells of one field over all concepts."""

    def __init__(self, scores: Sequence[Score], field: str) -> None:
        self.scores, self.field = scores, field
        self.last = max(s.stage for s in scores)
        self.before, self.leaked = self._of(PLAIN, 0), self._of(PLAIN, self.last)
        self.end, self.together = self._of(SINGLE, self.last), self._of(TOGETHER, self.last)
        self.new = cells_of([s for s in scores if s.kind == SINGLE and s.stage == s.concepts[0] + 1], field)

    def _of(self, kind: str, stage: int) -> Cells:
        return cells_of([s for s in self.scores if (s.kind, s.stage) == (kind, stage)], self.field)

    def alone(self, index: int) -> float:
        """Mean over the pictures of one concept at the end."""
        rows = [s for s in self.scores if (s.kind, s.stage, s.concepts) == (SINGLE, self.last, (index,))]
        return _mean(cells_of(rows, self.field))

    def independent(self) -> float:
        """How often all concepts of a prompt would be seen if each came as often as when it is asked for alone."""
        rows = [s for s in self.scores if s.kind == TOGETHER and s.stage == self.last]
        return float(np.mean([math.prod(self.alone(j) for j in s.concepts) for s in rows])) if rows else math.nan


def board(scores: Sequence[Score], zero_shot: Mapping[str, Any], trusted: bool = True) -> Board:
    """The whole run at a glance. trusted: whether the scorer knows such pictures; if not, only the model's pictures
    without any concept are told of."""
    rest = _everything_else(zero_shot)
    if not trusted:
        return Board(UNTRUSTED, rest)
    seen = _Run(scores, "found")
    if seen.end:
        return Board(_sentence_of_judge(seen), _of_judge(seen) + rest)
    like = _Run(scores, "clip_i")
    return Board(_sentence_of_likeness(like), _of_likeness(like, scores) + rest) if like.end else Board("", rest)


def _of_judge(run: _Run) -> tuple[Entry, ...]:
    before, mark = told(run.before, "found"), 100 * _mean(run.before)
    base = f"{before.value} before training" if run.before else "before training: not drawn"
    out = [Entry("Shown right after its lesson", told(run.new, "found"), base, mark)] if run.last > 1 else []
    out.append(Entry("Shown at the end" if run.last > 1 else "Shown", told(run.end, "found"), base, mark))
    if run.together:
        alone = 100 * run.independent()
        reference = f"{number(alone)}\u00a0% if each came as often as alone"
        out.append(Entry("All of several in one prompt", told(run.together, "found"), reference, alone))
    if run.leaked:
        out.append(Entry("Shown without its token (leakage)", told(run.leaked, "found"), base, mark, less=True))
    return tuple(out)


def _sentence_of_judge(run: _Run) -> str:
    base = f" ({shown(run.before)} before training)" if run.before else ""
    when = "At the end the model" if run.last > 1 else "The model"
    text = f"{when} shows the concept in {shown(run.end)} pictures that ask for one{base}"
    if run.together:
        text += f", and all of them in {shown(run.together)} that ask for several"
    if run.leaked:
        text += f". Without its token, a concept appears in {shown(run.leaked)}"
    return text + "."


def _of_likeness(run: _Run, scores: Sequence[Score]) -> tuple[Entry, ...]:
    before, mark = told(run.before, "clip_i"), 100 * _mean(run.before)
    base = f"{before.value} before training" if run.before else "before training: not drawn"
    others = [s.clip_i_others for s in scores if s.kind == SINGLE and s.stage == run.last]
    others = [x for x in others if math.isfinite(x)]
    both = base + (f", {number(100 * float(np.mean(others)))} to the other concepts' pictures" if others else "")
    out = [Entry("Likeness right after its lesson", told(run.new, "clip_i"), base, mark)] if run.last > 1 else []
    out.append(Entry("Likeness at the end" if run.last > 1 else "Likeness", told(run.end, "clip_i"), both, mark))
    if run.together:
        alone = told(run.end, "clip_i")
        out.append(
            Entry("Likeness, several in one prompt", told(run.together, "clip_i"), f"{alone.value} alone", alone.at)
        )
    if run.leaked:
        out.append(Entry("Likeness without its token (leakage)", told(run.leaked, "clip_i"), base, mark, less=True))
    return tuple(out)


def _sentence_of_likeness(run: _Run) -> str:
    found = change(run.before, run.end)
    now, before = told(run.end, "clip_i").value, told(run.before, "clip_i").value
    values = f"likeness {now} of 100" + (f", {before} before training" if run.before else "")
    if found.low > 0:
        return f"Pictures that ask for a concept have come closer to those it was taught with: {values}."
    if math.isnan(found.low):
        return f"Too few pictures were drawn to tell what was learned from chance: {values}."
    return f"Pictures that ask for a concept are no closer to those it was taught with than chance may do: {values}."


def _everything_else(zero_shot: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Pictures without any concept: what they should show, as far as the miniature's judge tells; else how much they
    have changed."""
    control, count = zero_shot.get("control"), zero_shot.get("prompts", 0)
    pictures = f"{count} pictures"
    if control:
        before, after = (_control(zero_shot, when) for when in ("before", "after"))
        limits = zero_shot.get("shown", {}).get("after", ())
        low, high = (100 * x for x in _limits(limits))
        span = "" if math.isnan(low) else f"{number(low)} to {number(high)}\u00a0%"
        value = Told(f"{number(after)}\u00a0%", span, pictures, after, low, high)
        return (Entry("Everything else as asked for (control)", value, f"{number(before)}\u00a0% before", before),)
    if "unchanged" not in zero_shot:
        return ()
    kept, unrelated = 100 * zero_shot["unchanged"], zero_shot.get("unrelated")
    reference = "100 is unchanged"
    if unrelated is not None:
        reference += f", {number(100 * unrelated)} are two unrelated pictures"
    value = Told(number(kept), "", pictures, kept)
    return (Entry("Everything else, like before", value, reference, 100 * unrelated if unrelated else math.nan),)


def _control(zero_shot: Mapping[str, Any], when: str) -> float:
    shares = [x for x in zero_shot["control"][when].values() if x is not None and math.isfinite(x)]
    return 100 * float(np.mean(shares)) if shares else math.nan


def _limits(shown_n: Sequence[float]) -> tuple[float, float]:
    """Of a mean over pictures, a prompt each: what share of the asked they show."""
    prompts = range(len(shown_n))
    if len(shown_n) < ENOUGH:
        return math.nan, math.nan
    whole = set(shown_n) <= {0.0, 1.0}
    found = share(shown_n, prompts) if whole else interval(shown_n, ["run"] * len(shown_n), prompts)
    return found.low, found.high


def _mean(cells: Cells) -> float:
    return float(np.mean(list(cells.values()))) if cells else math.nan
