"""Small charts as inline SVG: lines and a heat map; a few kB each, without matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from cns_jax.engine.pages.report import svg
from cns_jax.engine.pages.report.svg import Look

_HEIGHT = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 16, 36
_LIGHT, _DARK = (234, 242, 251), (14, 63, 134)  # of the heat map

REFERENCE = Look("#6b7078", dashed=True, width=1.4)


class Line(NamedTuple):
    """A line through points (x, y); it is broken where y is NaN."""

    points: Sequence[svg.Point]
    look: Look


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

    def place(point: svg.Point) -> svg.Point:
        x = (point[0] - left) / (right - left or 1)
        y = (point[1] - low) / (high - low or 1)
        return _LEFT + x * (svg.WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM)

    digits = max(0, -math.floor(math.log10((marks[1] - marks[0]) * (100 if percent else 1)) + 1e-9))
    parts: list[Markup] = []
    for value in marks:
        y = place((left, value))[1]
        text = f"{100 * value:.{digits}f} %" if percent else _number(value, digits)
        parts.append(svg.rule((_LEFT, y), (svg.WIDTH - _RIGHT, y), "grid"))
        parts.append(svg.text((_LEFT - 6, y + 4), text, "end"))
    for x in splits:
        parts.append(svg.rule(place((x, low)), place((x, high)), "split"))
    for x, label in x_ticks:
        parts.append(svg.text((place((x, low))[0], _HEIGHT - _BOTTOM + 17), label, "middle"))
    parts.append(svg.text(((_LEFT + svg.WIDTH - _RIGHT) / 2, _HEIGHT - 4), x_label, "middle", "axis"))
    for line in lines:
        for run in _unbroken(line.points):
            parts.append(svg.path([place(p) for p in run], line.look))
    for line in lines:
        parts += [svg.mark(place(p), line.look) for p in line.points if line.look.marker and math.isfinite(p[1])]
    return svg.figure(svg.WIDTH, _HEIGHT, title, parts)


def heat_map(values: Sequence[Sequence[float]], names: Sequence[str], *, title: str) -> Markup:
    """A square matrix of shares, its diagonal left blank; rows by number and name, columns by number.

    The darkest colour is a half, or the largest share if that is more.
    """
    matrix = np.asarray(values, float)
    count = len(matrix)
    label = min(118, 30 + 6 * max(map(len, names)))
    cell = min(44.0, (svg.WIDTH - label - 4) / count)
    top = _HEAT
    peak = float(matrix[~np.eye(count, dtype=bool)].max(initial=0.5))
    parts = []
    for i, name in enumerate(names):
        short = name if len(name) <= 14 else name[:13] + "…"
        middle = top + (i + 0.5) * cell + 4
        parts.append(svg.text((label - 8, middle), f"{short}  {i + 1}", "end", "name"))
        parts.append(svg.text((label + (i + 0.5) * cell, top - 7), f"{i + 1}", "middle"))
        for j in range(count):
            x, y, part = label + j * cell, top + i * cell, matrix[i, j] / peak
            color = "#eeece6" if i == j else _mixed(part)
            parts.append(
                Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="4" fill="{}"/>').format(
                    svg.number(x + 1), svg.number(y + 1), svg.number(cell - 2), svg.number(cell - 2), color
                )
            )
            if i != j:
                text = f"{100 * matrix[i, j]:.0f}"
                parts.append(svg.text((x + cell / 2, middle), text, "middle", "pale" if part > 0.5 else "dark"))
    return svg.figure(label + count * cell + 4, top + count * cell + 2, title, parts)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, two or more."""
    span = high - low or abs(high) * 0.2 or 1.0
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * m for m in (1, 2, 5, 10, 20) if span / (unit * m) <= most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


_HEAT = 22  # the columns' numbers


def _unbroken(points: Sequence[svg.Point]) -> Iterator[list[svg.Point]]:
    run: list[svg.Point] = []
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
