"""Small charts as inline SVG: drawn for a phone's width, with text that stays text; a few kB each, without matplotlib.

Colours are classes of the page's style sheet where the page decides, and those of evals/figures where they tell
concepts apart. What users have named is escaped by `Markup.format`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from cns_jax.evals.figures import PALETTE

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 16, 36
_LIGHT, _DARK = (234, 242, 251), (14, 63, 134)  # of the heat map

_Point = tuple[float, float]


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


PLASTICITY = Look("#6b7078", dashed=True, width=1.4)


class Line(NamedTuple):
    """A line through points (x, y); it is broken where y is NaN."""

    points: Sequence[_Point]
    look: Look


def key(look: Look) -> Markup:
    """What stands before a line's name in a legend."""
    return Markup('<svg class="key" viewBox="0 0 24 12" aria-hidden="true">{}{}</svg>').format(
        _path([(1, 6), (23, 6)], look), _mark((12, 6), look)
    )


def line_chart(
    lines: Sequence[Line],
    x_ticks: Sequence[tuple[float, str]],
    *,
    title: str,
    x_label: str,
    percent: bool = False,
    splits: Sequence[float] = (),
) -> Markup:
    """Lines over x, which spans the ticks and all points. title: for readers who do not see it; splits: vertical lines.

    percent: the values are shares. Empty if there is no finite value.
    """
    finite = [p for line in lines for p in line.points if math.isfinite(p[1])]
    if not finite:
        return Markup("")
    xs = [x for x, _ in finite] + [x for x, _ in x_ticks] + list(splits)
    left, right = min(xs), max(xs)
    marks = ticks(min(y for _, y in finite), max(y for _, y in finite))
    low, high = marks[0], marks[-1]
    if any(line.look.marker for line in lines):  # room for the markers
        left, right = left - 0.06 * (right - left or 1), right + 0.06 * (right - left or 1)

    def place(point: _Point) -> _Point:
        x = (point[0] - left) / (right - left or 1)
        y = (point[1] - low) / (high - low or 1)
        return _LEFT + x * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM)

    digits = max(0, -math.floor(math.log10((marks[1] - marks[0]) * (100 if percent else 1)) + 1e-9))
    parts: list[Markup] = []
    for value in marks:
        y = place((left, value))[1]
        text = f"{100 * value:.{digits}f} %" if percent else _number(value, digits)
        parts.append(_rule((_LEFT, y), (_WIDTH - _RIGHT, y), "grid"))
        parts.append(_text((_LEFT - 6, y + 4), text, "end"))
    for x in splits:
        parts.append(_rule(place((x, low)), place((x, high)), "split"))
    for x, label in x_ticks:
        parts.append(_text((place((x, low))[0], _HEIGHT - _BOTTOM + 17), label, "middle"))
    parts.append(_text(((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4), x_label, "middle", "axis"))
    for line in lines:
        for run in _unbroken(line.points):
            parts.append(_path([place(p) for p in run], line.look))
    for line in lines:
        parts += [_mark(place(p), line.look) for p in line.points if line.look.marker and math.isfinite(p[1])]
    return _svg(_WIDTH, _HEIGHT, title, parts)


def heat_map(values: Sequence[Sequence[float]], names: Sequence[str], *, title: str) -> Markup:
    """A square matrix of shares, its diagonal left blank; rows by number and name, columns by number.

    The darkest colour is a half, or the largest share if that is more.
    """
    matrix = np.asarray(values, float)
    count = len(matrix)
    label = min(118, 30 + 6 * max(map(len, names)))
    cell = min(44.0, (_WIDTH - label - 4) / count)
    top = _HEAT
    peak = float(matrix[~np.eye(count, dtype=bool)].max(initial=0.5))
    parts = []
    for i, name in enumerate(names):
        short = name if len(name) <= 14 else name[:13] + "…"
        middle = top + (i + 0.5) * cell + 4
        parts.append(_text((label - 8, middle), f"{short}  {i + 1}", "end", "name"))
        parts.append(_text((label + (i + 0.5) * cell, top - 7), f"{i + 1}", "middle"))
        for j in range(count):
            x, y, part = label + j * cell, top + i * cell, matrix[i, j] / peak
            color = "#eeece6" if i == j else _mixed(part)
            parts.append(
                Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="4" fill="{}"/>').format(
                    _n(x + 1), _n(y + 1), _n(cell - 2), _n(cell - 2), color
                )
            )
            if i != j:
                text = f"{100 * matrix[i, j]:.0f}"
                parts.append(_text((x + cell / 2, middle), text, "middle", "pale" if part > 0.5 else "dark"))
    return _svg(label + count * cell + 4, top + count * cell + 2, title, parts)


class Bar(NamedTuple):
    """Of one layer: the mean share over concepts of its keys and of its values, and the least and the most."""

    label: str
    keys: tuple[float, float, float]
    values: tuple[float, float, float]


KEYS, VALUES = Look(PALETTE[0], "square", width=0), Look(PALETTE[1], "square", width=0)


def layer_bars(layers: Sequence[Bar], *, title: str) -> Markup:
    """Two bars a layer, keys above values, with whiskers from the least to the most."""
    label, row, top = 74, 26, 4
    widest = max(max(bar.keys[2], bar.values[2]) for bar in layers) or 1.0
    room = _WIDTH - label - 46
    parts = []
    for i, bar in enumerate(layers):
        y = top + i * row
        parts.append(_text((label - 8, y + 15), bar.label, "end", "name"))
        for (mean, least, most), look, shift in ((bar.keys, KEYS, 1), (bar.values, VALUES, 12)):
            length, middle = mean / widest * room, y + shift + 5
            parts.append(
                Markup('<rect x="{}" y="{}" width="{}" height="9" rx="2" fill="{}"/>').format(
                    label, _n(y + shift), _n(length), look.color
                )
            )
            if most > least:
                ends = label + least / widest * room, label + most / widest * room
                parts.append(_rule((ends[0], middle), (ends[1], middle), "whisker"))
            tip = label + max(length, most / widest * room) + 5
            parts.append(_text((tip, middle + 3.5), f"{100 * mean:.1f} %", "start", "small"))
    return _svg(_WIDTH, top + len(layers) * row + 2, title, parts)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, two or more."""
    span = high - low or abs(high) * 0.2 or 1.0
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * m for m in (1, 2, 5, 10, 20) if span / (unit * m) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


_HEAT = 22  # the columns' numbers


def _unbroken(points: Sequence[_Point]) -> Iterator[list[_Point]]:
    run: list[_Point] = []
    for point in points:
        if math.isfinite(point[1]):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _mixed(part: float) -> str:
    part = min(max(part, 0.0), 1.0)
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(_LIGHT, _DARK, strict=True))


def _number(value: float, digits: int) -> str:
    """With so many digits after the point, or as 5e-5."""
    return f"{value:.{digits}f}" if digits <= 3 else f"{value:.2g}".replace("e-0", "e-")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    head = '<svg class="chart" viewBox="0 0 {} {}" style="max-width:{}px" role="img" aria-label="{}">{}</svg>'
    return Markup(head).format(_n(width), _n(height), round(1.35 * width), title, Markup("").join(parts))


def _text(at: _Point, text: str, anchor: str, style: str = "") -> Markup:
    kind = Markup(' class="{}"').format(style) if style else ""
    return Markup('<text x="{}" y="{}" text-anchor="{}"{}>{}</text>').format(_n(at[0]), _n(at[1]), anchor, kind, text)


def _rule(a: _Point, b: _Point, style: str) -> Markup:
    return Markup('<path class="{}" d="M{} {}L{} {}"/>').format(style, _n(a[0]), _n(a[1]), _n(b[0]), _n(b[1]))


def _path(points: Sequence[_Point], look: Look) -> Markup:
    way = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    dash = Markup(' stroke-dasharray="4 4"') if look.dashed else ""
    form = '<path d="M{}" fill="none" stroke="{}" stroke-width="{}" stroke-linejoin="round"{}/>'
    return Markup(form).format(way, look.color, look.width, dash)


_MARKERS = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "square": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "diamond": "M0 -5L5 0L0 5L-5 0z",
    "triangle": "M0 -5L4.8 3.6H-4.8z",
}


def _mark(at: _Point, look: Look) -> Markup:
    if not look.marker:
        return Markup("")
    form = '<path transform="translate({} {})" d="{}" fill="{}" stroke="#fff" stroke-width="1"/>'
    return Markup(form).format(_n(at[0]), _n(at[1]), _MARKERS[look.marker], look.color)
