"""Bar charts of the report: where weights may change, layer by layer, and how long the parts of a run took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from cns_jax.engine.pages.report import svg
from cns_jax.engine.pages.report.figures import ticks
from cns_jax.engine.pages.report.svg import Look
from cns_jax.evals.figures import PALETTE


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
    room = svg.WIDTH - label - 46
    parts = []
    for i, bar in enumerate(layers):
        y = top + i * row
        parts.append(svg.text((label - 8, y + 15), bar.label, "end", "name"))
        for (mean, least, most), look, shift in ((bar.keys, KEYS, 1), (bar.values, VALUES, 12)):
            length, middle = mean / widest * room, y + shift + 5
            parts.append(
                Markup('<rect x="{}" y="{}" width="{}" height="9" rx="2" fill="{}"/>').format(
                    label, svg.number(y + shift), svg.number(length), look.color
                )
            )
            if most > least:
                ends = label + least / widest * room, label + most / widest * room
                parts.append(svg.rule((ends[0], middle), (ends[1], middle), "whisker"))
            tip = label + max(length, most / widest * room) + 5
            parts.append(svg.text((tip, middle + 3.5), f"{100 * mean:.1f} %", "start", "small"))
    return svg.figure(svg.WIDTH, top + len(layers) * row + 2, title, parts)


class Part(NamedTuple):
    """A part of a run: its name, how long it took, and the same for people."""

    name: str
    seconds: float
    told: str


_UNITS = ((3 * 3600.0, 3600.0, "hours"), (60.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))  # from so long on


def time_bars(parts: Sequence[Part], *, title: str) -> Markup:
    """A bar a part from zero, on a scale of minutes (of hours or seconds where that reads better)."""
    label, row, top, bottom = 134, 26, 4, 36
    longest = max(part.seconds for part in parts)
    unit, unit_name = next((unit, name) for least, unit, name in _UNITS if longest >= least)
    marks = ticks(0.0, longest / unit)
    room, foot = svg.WIDTH - label - 66, top + len(parts) * row  # behind the bars: how long they took
    drawn = []
    for value in marks:
        x = label + value / marks[-1] * room
        drawn.append(svg.rule((x, top), (x, foot), "grid"))
        drawn.append(svg.text((x, foot + 15), f"{value:g}", "middle"))
    drawn.append(svg.text((label + room / 2, foot + 31), unit_name, "middle", "axis"))
    for i, part in enumerate(parts):
        y, length = top + i * row, part.seconds / unit / marks[-1] * room
        name = part.name if len(part.name) <= 21 else part.name[:20] + "…"
        drawn.append(svg.text((label - 8, y + 17), name, "end", "name"))
        form = '<rect class="bar" x="{}" y="{}" width="{}" height="14" rx="2"/>'
        drawn.append(Markup(form).format(label, svg.number(y + 6), svg.number(max(length, 0.5))))
        drawn.append(svg.text((label + length + 6, y + 17), part.told, "start"))
    return svg.figure(svg.WIDTH, foot + bottom, title, drawn)
