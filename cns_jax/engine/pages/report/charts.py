"""The report's charts as inline SVG, drawn by matplotlib for a phone's width, with text that stays text.

matplotlib is imported when something is drawn, so that nothing else waits for it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

from cns_jax.evals.figures import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 360  # px
_INK, _SOFT, _GRID, _SPLIT, _BAR = "#22252b", "#6b7078", "#e6e3dc", "#c9c5bb", "#6f9bd8"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cns_jax",  # the same data gives the same picture
    "text.parse_math": False,  # names are words, whatever signs they hold
    "font.size": 11.5,
    "text.color": _INK,
    "axes.linewidth": 0,
    "axes.axisbelow": True,
    "axes.labelcolor": _SOFT,
    "grid.color": _GRID,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^"}

Point = tuple[float, float]


class Look(NamedTuple):
    """How a line looks: its colour, its marker ("" for none, or a key of _MARKERS), dashed or not."""

    color: str
    marker: str = ""
    dashed: bool = False
    width: float = 2.2

    @classmethod
    def of(cls, index: int) -> Look:
        """Of concept `index`: told apart by colour and by marker."""
        turn = index + index // len(PALETTE)  # the ninth concept has the first's colour, not its marker
        return cls(PALETTE[index % len(PALETTE)], tuple(_MARKERS)[turn % len(_MARKERS)])


REFERENCE = Look(_SOFT, dashed=True, width=1.4)
KEYS, VALUES = Look(PALETTE[0], "square", width=0), Look(PALETTE[1], "square", width=0)


class Line(NamedTuple):
    """A line through points (x, y); it is broken where y is NaN."""

    points: Sequence[Point]
    look: Look


class Bar(NamedTuple):
    """Of one layer: the mean share over concepts of its keys and of its values, and the least and the most."""

    label: str
    keys: tuple[float, float, float]
    values: tuple[float, float, float]


class Part(NamedTuple):
    """A part of a run: its name, how long it took, and the same for people."""

    name: str
    seconds: float
    told: str


def key(look: Look) -> Markup:
    """What stands before a line's name in a legend."""
    with _drawn(24, 12, "", "key") as (axes, done):
        axes.set(xlim=(0, 24), ylim=(0, 12))
        axes.axis("off")
        axes.set_position((0, 0, 1, 1))
        _line(axes, [(1, 6), (23, 6)], look)
        if look.marker:
            _marks(axes, [(12, 6)], look)
    return done()


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
    if not any(math.isfinite(y) for line in lines for _, y in line.points):
        return Markup("")
    with _drawn(WIDTH, 210, title) as (axes, done):
        for x in splits:
            axes.axvline(x, color=_SPLIT, linewidth=0.8, dashes=(2, 3))
        for line in lines:
            _line(axes, line.points, line.look)
        for line in lines:
            if line.look.marker:
                _marks(axes, line.points, line.look)
        axes.set_xticks([x for x, _ in x_ticks], [label for _, label in x_ticks])
        axes.set_xlabel(x_label)
        axes.grid(axis="y")
        axes.locator_params(axis="y", nbins=5)
        axes.yaxis.set_major_formatter(_percent if percent else _number)
    return done()


def heat_map(values: Sequence[Sequence[float]], names: Sequence[str], *, title: str) -> Markup:
    """A square matrix of shares, its diagonal left blank; rows by number and name, columns by number.

    The darkest colour is a half, or the largest share if that is more.
    """
    matrix = np.asarray(values, float)
    count = len(matrix)
    others = np.where(np.eye(count, dtype=bool), np.nan, matrix)
    peak = float(np.nanmax(others, initial=0.5))
    with _drawn(WIDTH, 46 + min(44, 250 / count) * count, title) as (axes, done):
        axes.pcolormesh(others, cmap="Blues", vmin=0, vmax=peak, edgecolors="white", linewidth=2)
        axes.set(xlim=(0, count), ylim=(count, 0), aspect="equal")
        middles = np.arange(count) + 0.5
        axes.set_yticks(middles, [f"{_short(name, 14)}  {i + 1}" for i, name in enumerate(names)], color=_INK)
        axes.set_xticks(middles, [f"{i + 1}" for i in range(count)])
        axes.xaxis.tick_top()
        for i, j in zip(*np.nonzero(np.isfinite(others)), strict=True):
            color = "white" if others[i, j] > peak / 2 else _INK
            axes.text(j + 0.5, i + 0.5, f"{100 * others[i, j]:.0f}", ha="center", va="center", color=color)
    return done()


def layer_bars(layers: Sequence[Bar], *, title: str) -> Markup:
    """Two bars a layer, keys above values, with whiskers from the least to the most."""
    with _drawn(WIDTH, 26 * len(layers) + 10, title) as (axes, done):
        widest = max(max(bar.keys[2], bar.values[2]) for bar in layers) or 1.0
        for shift, look, of in ((-0.2, KEYS, "keys"), (0.2, VALUES, "values")):
            shares = np.asarray([getattr(bar, of) for bar in layers])
            rows = np.arange(len(layers)) + shift
            axes.barh(rows, shares[:, 0], 0.36, color=look.color)
            axes.hlines(rows, shares[:, 1], shares[:, 2], color=_INK, linewidth=1, alpha=0.55)
            for row, (mean, _, most) in zip(rows, shares, strict=True):
                axes.text(most + 0.015 * widest, row, f"{100 * mean:.1f} %", va="center", fontsize=9.5, color=_SOFT)
        axes.set(xlim=(0, 1.2 * widest), ylim=(len(layers) - 0.4, -0.6))
        axes.set_yticks(range(len(layers)), [bar.label for bar in layers], color=_INK)
        axes.set_xticks([])
    return done()


_UNITS = ((3 * 3600.0, 3600.0, "hours"), (60.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))  # from so long on


def time_bars(parts: Sequence[Part], *, title: str) -> Markup:
    """A bar a part from zero, on a scale of minutes (of hours or seconds where that reads better)."""
    longest = max(part.seconds for part in parts)
    unit, unit_name = next((unit, name) for least, unit, name in _UNITS if longest >= least)
    with _drawn(WIDTH, 26 * len(parts) + 46, title) as (axes, done):
        rows, lengths = range(len(parts)), [part.seconds / unit for part in parts]
        axes.barh(rows, lengths, 0.54, color=_BAR)
        for row, part, length in zip(rows, parts, lengths, strict=True):
            axes.text(length + 0.015 * longest / unit, row, part.told, va="center", color=_SOFT)
        axes.set(xlim=(0, 1.3 * longest / unit), ylim=(len(parts) - 0.4, -0.6), xlabel=unit_name)
        axes.set_yticks(rows, [_short(part.name, 21) for part in parts], color=_INK)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return done()


@contextmanager
def _drawn(width: float, height: float, title: str, kind: str = "chart") -> Iterator[tuple[Axes, Callable[[], Markup]]]:
    """Axes to draw on, and what gives the picture afterwards. width, height: px; title: for readers who do not see it;
    kind: its class in the page's style sheet."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    made: list[str] = []
    with rc_context(_STYLE):
        canvas = Figure(figsize=(width / 72, height / 72), layout="constrained" if kind == "chart" else None)
        canvas.patch.set_visible(False)
        axes = canvas.add_subplot()
        axes.patch.set_visible(False)
        yield axes, lambda: _inline(made[0], width, height, title, kind)
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        made.append(file.getvalue())


def _inline(source: str, width: float, height: float, title: str, kind: str) -> Markup:
    """matplotlib's file as a part of a page: no head, no ids that several charts would share, the page's own font."""
    body = source[source.index(">", source.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.S)
    body = re.sub(r'<g id="([A-Za-z.]+[a-z])(?:2d)?_\d+">', r'<g class="drawn-\1">', body)
    body = re.sub(r'<clipPath.*?</clipPath>| clip-path="[^"]*"', "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*"/>|<defs>\s*</defs>| transform="rotate\(-0 [^"]*"| font-family: [^;"]+;', "", body)
    body = body.replace("xlink:href=", "href=")  # SVG 2, as all browsers of today read it
    told = f'role="img" aria-label="{escape(title)}"' if title else 'aria-hidden="true"'
    limit = f' style="max-width:{round(1.35 * width)}px"' if kind == "chart" else ""
    head = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}"{limit} {told}>'
    return Markup(head + " ".join(body.split()))  # noqa: S704 - matplotlib and `escape` have escaped all words


def _line(axes: Axes, points: Sequence[Point], look: Look) -> None:
    if look.width:
        xs, ys = zip(*points, strict=True)
        style: Any = (0, (4, 4)) if look.dashed else "solid"
        axes.plot(xs, ys, color=look.color, linewidth=look.width, linestyle=style, clip_on=False)


def _marks(axes: Axes, points: Sequence[Point], look: Look) -> None:
    xs, ys = zip(*points, strict=True)
    style: Any = {"marker": _MARKERS[look.marker], "markersize": 8, "markeredgecolor": "white"}
    axes.plot(xs, ys, color=look.color, linestyle="none", clip_on=False, **style)


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _percent(value: float, _: float) -> str:
    return f"{100 * value:.6g} %"


def _number(value: float, _: float) -> str:
    """As it is, or as 5e-5."""
    return f"{value:.6g}".replace("e-0", "e-")
