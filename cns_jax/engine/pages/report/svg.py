"""Inline SVG for the report's charts: drawn for a phone's width, with text that stays text.

Colours are classes of the page's style sheet where the page decides, and those of evals/figures where they tell
concepts apart. What users have named is escaped by `Markup.format`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from cns_jax.evals.figures import PALETTE

WIDTH = 360

Point = tuple[float, float]


class Look(NamedTuple):
    """How a line looks: its colour, its marker ("" for none: circle, square, diamond, triangle), dashed or not."""

    color: str
    marker: str = ""
    dashed: bool = False
    width: float = 2.2

    @classmethod
    def of(cls, index: int) -> Look:
        """Of concept `index`: told apart by colour and by marker."""
        markers = ("circle", "square", "diamond", "triangle")
        turn = index + index // len(PALETTE)  # the ninth concept has the first's colour, not its marker
        return cls(PALETTE[index % len(PALETTE)], markers[turn % len(markers)])


def key(look: Look) -> Markup:
    """What stands before a line's name in a legend."""
    return Markup('<svg class="key" viewBox="0 0 24 12" aria-hidden="true">{}{}</svg>').format(
        path([(1, 6), (23, 6)], look), mark((12, 6), look)
    )


def number(value: float) -> str:
    """With one digit after the point, where it is not 0."""
    return f"{value:.1f}".removesuffix(".0")


def figure(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    """A chart of its parts. title: for readers who do not see it."""
    head = '<svg class="chart" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">{}</svg>'
    return Markup(head).format(number(width), number(height), round(1.35 * width), title, Markup("").join(parts))


def text(at: Point, words: str, anchor: str, style: str = "") -> Markup:
    """Words at a point. anchor: start, middle or end; style: a class of the style sheet."""
    kind = Markup(' class="{}"').format(style) if style else ""
    return Markup('<text x="{}" y="{}" text-anchor="{}"{}>{}</text>').format(
        number(at[0]), number(at[1]), anchor, kind, words
    )


def rule(a: Point, b: Point, style: str) -> Markup:
    """A straight line that the style sheet colours."""
    return Markup('<path class="{}" d="M{} {}L{} {}"/>').format(
        style, number(a[0]), number(a[1]), number(b[0]), number(b[1])
    )


def path(points: Sequence[Point], look: Look) -> Markup:
    """A line through points."""
    way = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    dash = Markup(' stroke-dasharray="4 4"') if look.dashed else ""
    form = '<path d="M{}" fill="none" stroke="{}" stroke-width="{}" stroke-linejoin="round"{}/>'
    return Markup(form).format(way, look.color, look.width, dash)


_MARKERS = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "square": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "diamond": "M0 -5L5 0L0 5L-5 0z",
    "triangle": "M0 -5L4.8 3.6H-4.8z",
}


def mark(at: Point, look: Look) -> Markup:
    """A marker; nothing if the look has none."""
    if not look.marker:
        return Markup("")
    form = '<path transform="translate({} {})" d="{}" fill="{}" stroke="#fff" stroke-width="1"/>'
    return Markup(form).format(number(at[0]), number(at[1]), _MARKERS[look.marker], look.color)
