"""Prompt weights as AUTOMATIC1111's web UI reads them: (word), ((word)), [word], (word:1.3), escapes, BREAK.

A round bracket weighs what is in it 1.1 times, a square one 1 / 1.1 times, (text:1.3) exactly 1.3 times; brackets in
brackets multiply. A bracket that nobody closes reaches to the prompt's end. A backslash before a bracket, or before
another backslash, makes it a letter. BREAK, in capitals, begins a new chunk of the text encoder.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

log = logging.getLogger(__name__)

_ROUND, _SQUARE = 1.1, 1 / 1.1
_PIECE = re.compile(r"\\[()\[\]\\]|[()\[\]]|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[^\\()\[\]:]+|[\\:]")
_HEAVIEST = 1000.0
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)
_EDIT = re.compile(r"\[[^\[\]()]*[:|][^\[\]()]*\]|\bAND\b")


class PromptError(ValueError):
    """A prompt that cannot be drawn as it is written; the message says why."""


class Segment(NamedTuple):
    """Text whose tokens have one weight. begins: whether a new chunk begins before it (after BREAK)."""

    text: str
    weight: float = 1.0
    begins: bool = False


def segments(prompt: str) -> list[Segment]:
    """The prompt without brackets: its text with the weights, in order; neighbours of one weight are one segment.

    A prompt without any of this is one segment, to the letter. What stands for another network (<lora:name:0.8>) is
    left out, with a warning in the log, once a name. Raises PromptError for a weight beyond 1000.
    """
    found: list[Segment] = []
    text = _without_networks(prompt)
    if _EDIT.search(text):
        _warn_of_edits(text)
    round_, square = list[int](), list[int]()  # of the open brackets: which segment was the first in them
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece in ("(", "["):
            (round_ if piece == "(" else square).append(len(found))
        elif match["weight"] and round_:
            _weigh(found, round_.pop(), float(match["weight"]))
        elif piece == ")" and round_:
            _weigh(found, round_.pop(), _ROUND)
        elif piece == "]" and square:
            _weigh(found, square.pop(), _SQUARE)
        else:
            for i, part in enumerate(_BREAK.split(piece)):
                literal = part[1:] if len(part) == 2 and part[0] == "\\" else part
                found.append(Segment(literal, begins=i > 0))
    for opened, factor in ((round_, _ROUND), (square, _SQUARE)):
        for first in opened:
            _weigh(found, first, factor)
    return _joined(found)


def _weigh(found: list[Segment], first: int, factor: float) -> None:
    found[first:] = [segment._replace(weight=segment.weight * factor) for segment in found[first:]]
    for text, weight, _ in found[first:]:
        if abs(weight) > _HEAVIEST:
            raise PromptError(f"the prompt weighs {text!r} {weight:g} times; {_HEAVIEST:g} is the most")


def _joined(found: Sequence[Segment]) -> list[Segment]:
    out: list[Segment] = []
    for segment in found:
        if not segment.text and not segment.begins:
            continue
        if out and not segment.begins and out[-1].weight == segment.weight:
            out[-1] = out[-1]._replace(text=out[-1].text + segment.text)
        else:
            out.append(segment)
    return out or [Segment("")]


def _without_networks(prompt: str) -> str:
    names = _NETWORK.findall(prompt)
    for name in names:
        _warn_of_network(name)
    return _NETWORK.sub("", prompt) if names else prompt


@cache  # a name is warned of once, not once a picture
def _warn_of_network(name: str) -> None:
    log.warning("%s is left out of the prompt: pictures are drawn from the model alone, without other networks", name)


@cache
def _warn_of_edits(text: str) -> None:
    log.warning(
        "%r: [from:to:when], [one|other] and AND are not supported; their words and signs are taken as text", text
    )
