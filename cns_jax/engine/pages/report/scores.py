"""What an evaluation says of one concept, in plain words: was it learned, and was it kept?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cns_jax.engine.pages.report.told import ENOUGH, Cells, cells_of, change, number, shown
from cns_jax.evals.scores import PLAIN, SINGLE, TABLE_SCALES, Score

_GOOD, _MIDDLE, _POOR, _PLAIN = "good", "middle", "poor", "plain"
_KEPT = 0.9  # a lasting score of at least this share of the new one


_Chips = tuple[tuple[str, str], ...]
_NO_CHIPS: _Chips = ()


@dataclass(frozen=True)
class Verdict:
    """sentence: what was learned and kept. chips: the same in a word or two, each with its mood for the style sheet."""

    sentence: str
    chips: _Chips


class Measured:
    """The scores of one concept, by (prompt, seed), where they were measured."""

    def __init__(self, scores: Sequence[Score], index: int, stages: int) -> None:
        self._scores = [s for s in scores if s.concepts == (index,)]
        self.own, self.last = index + 1, stages

    def cells(self, field: str, kind: str, stage: int) -> Cells:
        """Of the pictures of one kind and stage."""
        return cells_of([s for s in self._scores if (s.kind, s.stage) == (kind, stage)], field)

    def before(self, field: str) -> Cells:
        """By the base model, from the same prompts without the token."""
        return self.cells(field, PLAIN, 0)

    def new(self, field: str) -> Cells:
        """Right after the concept's lesson."""
        return self.cells(field, SINGLE, self.own)

    def end(self, field: str) -> Cells:
        """After the last lesson."""
        return self.cells(field, SINGLE, self.last)


def _mean(cells: Cells, scale: float = TABLE_SCALES["clip_i"]) -> str:
    return number(scale * float(np.mean(list(cells.values()))))


def _fit(cells: Cells) -> str:
    return _mean(cells, TABLE_SCALES["clip_t"])


def verdict(scores: Sequence[Score], index: int, stages: int, trusted: bool = True) -> Verdict | None:
    """Of concept `index`; None if it was not measured.

    Something has changed if the 95 % interval of the paired difference leaves out 0; of fewer than ENOUGH pictures only
    what was counted is told. "Learned" is what a judge sees. A likeness that has grown tells no more than that, and may
    be far from the concept still: pictures that fit their prompts less than before may have become noise of the right
    colours. trusted: whether the scorer knows such pictures at all; if not, there is nothing to tell.
    """
    one = Measured(scores, index, stages)
    like, seen, before = one.new("clip_i"), one.new("found"), one.before("found")
    if not like:
        return None
    if not trusted:
        return Verdict("Compare by eye: its scores say little about such pictures.", ())
    closer = change(one.before("clip_i"), like)
    learned = change(before, seen)
    earlier = f", {_mean(one.before('clip_i'))} before it" if one.before("clip_i") else ""
    told = f"likeness to its pictures {_mean(like)} of 100 right after the lesson{earlier}"
    field, chips = "clip_i", _NO_CHIPS
    if seen and (learned.low > 0 or math.isnan(learned.low)):
        field = "found"
        if learned.low > 0:
            chips = (("learned", _GOOD),)
        earlier = f", {shown(before)} before" if before else ""
        text = f"{shown(seen)} pictures show it right after its lesson{earlier}"
    elif closer.low > 0 and seen:
        chips = (("on its way", _MIDDLE),)
        text = f"The pictures have come closer to it, but only {shown(seen)} show it for certain ({told})"
    elif closer.low > 0:
        chips, text = _closer(one, told)
    elif math.isnan(closer.low):  # too few pictures, or none from before
        text = f"{told[0].upper()}{told[1:]}"
    elif seen:
        text = (
            f"Only {shown(seen)} pictures show it, and they have not come closer to it ({told}). More steps may help."
        )
        return Verdict(text, (("not learned yet", _POOR),))
    else:
        text = f"The pictures have not come closer to it by more than chance may do ({told}). More steps may help."
        return Verdict(text, (("no clear change", _POOR),))
    later, kept = _later(one, field)
    return Verdict(f"{text}. {later}".rstrip(), (*chips, *kept))


def _closer(one: Measured, told: str) -> tuple[_Chips, str]:
    """Closer to the concept's pictures; of a judge nothing is known."""
    if change(one.before("clip_t"), one.new("clip_t")).high < 0:
        words = f"fit the words of their prompts less than before: CLIP-T {_fit(one.new('clip_t'))} after "
        text = f"The pictures have come closer to its own ({told}), but {words}{_fit(one.before('clip_t'))}"
        return (("closer, but less true to the prompt", _MIDDLE),), text
    return (("closer", _PLAIN),), f"The pictures have come closer to those it was taught with: {told}"


def _later(one: Measured, field: str) -> tuple[str, _Chips]:
    if one.own == one.last:
        return "It was the last lesson." if one.last > 1 else "", ()
    told, new, end = (shown if field == "found" else _mean), one.new(field), one.end(field)
    if not end:
        return "", ()
    now, number = told(end), one.last - one.own
    after = "one more lesson" if number == 1 else f"{number} more lessons"
    amount = f"{now} still show it" if field == "found" else f"the likeness is {now}"
    if len(end) < ENOUGH:
        return f"After {after} {amount}.", ()
    left = float(np.mean(list(end.values()))) / max(float(np.mean(list(new.values()))), 1e-6)
    if left >= _KEPT:
        return f"After {after} {amount}.", (("kept", _GOOD),)
    if change(new, end).high < 0:
        less = f"only {now} show it" if field == "found" else f"the likeness has dropped to {now}"
        return f"After {after} {less}.", (("faded", _POOR),)
    return f"After {after} {amount}.", (("partly kept", _MIDDLE),)  # less, but within what chance may do
