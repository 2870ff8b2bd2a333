"""Plots for people in one style: curves with bands, bars with intervals, heat maps; each as PNG and SVG.

matplotlib is imported when something is drawn, so that nothing else waits for it, and used through its objects: no
window, no global figure, and a program that plots on its own keeps its settings.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C3E", "#555555")
"""Okabe and Ito's colours, which the colour-blind can tell apart, in an order in which neighbours differ most."""

_MARKERS = "osD^vPX*"
_DASHES: Any = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_INK, _FAINT, _GRID = "#22252b", "#6b7078", "#e3e5e9"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "legend.handlelength": 1.6,
    "svg.hashsalt": "cns_jax",  # the same data gives the same file
}
_DPI = 160


class Series(NamedTuple):
    """What one colour shows: values, the interval around each (both or neither), and, of curves, an x of its own.

    NaN leaves a gap.
    """

    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    x: Sequence[float] | None = None


@contextmanager
def figure(stem: Path, title: str, subtitle: str = "", width: float = 7.0, height: float = 4.0) -> Iterator[Axes]:
    """The axes to draw on, under a title in plain words and a paragraph below it; afterwards STEM.png and STEM.svg.

    width, height: inches, of which title and subtitle take theirs from an addition to the height.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    titles, notes = textwrap.wrap(title, int(9 * width)), textwrap.wrap(subtitle, int(14 * width))  # letters an inch
    head = 0.16 + 0.22 * len(titles) + 0.17 * len(notes)
    whole = height + head
    with rc_context(_STYLE):
        canvas = Figure(figsize=(width, whole), layout="constrained", facecolor="white")
        engine: Any = canvas.get_layout_engine()
        engine.set(rect=(0.01, 0.01, 0.98, 1 - head / whole - 0.01))
        top = 1 - 0.1 / whole
        canvas.text(0.15 / width, top, "\n".join(titles), va="top", fontsize=12, fontweight="bold", linespacing=1.25)
        below = top - 0.22 * len(titles) / whole
        canvas.text(0.15 / width, below, "\n".join(notes), va="top", color=_FAINT, linespacing=1.25)
        yield canvas.subplots()
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            # not with_suffix: a stem may hold a dot ("ratio_0.3")
            canvas.savefig(stem.with_name(stem.name + suffix), dpi=_DPI, metadata=metadata)


def curves(
    stem: Path,
    x: Sequence[float],
    series: Mapping[str, Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    subtitle: str = "",
    lines: Mapping[str, float] | None = None,
    percent: bool = False,
    markers: bool = False,
    y_range: tuple[float | None, float | None] | None = None,
    ticks: Mapping[float, str] | None = None,
) -> Path:
    """Label -> curve over `x` (or over its own x), with a band where it has low and high. Returns the PNG.

    lines: label -> height of a dashed line to compare with. percent: values are shares. markers: for few points.
    ticks: what to write at which x.
    """
    with figure(stem, title, subtitle) as axes:
        for i, (label, one) in enumerate(series.items()):
            at, color = np.asarray(x if one.x is None else one.x, float), PALETTE[i % len(PALETTE)]
            if one.low is not None and one.high is not None:
                axes.fill_between(at, one.low, one.high, color=color, alpha=0.18, linewidth=0)
            marker = _MARKERS[i % len(_MARKERS)] if markers else ""
            dashes = "solid" if markers else _DASHES[i % len(_DASHES)]  # a curve under another still shows
            axes.plot(at, one.y, color=color, linewidth=2, linestyle=dashes, marker=marker, markersize=5, label=label)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y")
        axes.margins(x=0.02)
        if y_range is not None:
            axes.set_ylim(*y_range)
        if ticks is not None:
            axes.set_xticks(list(ticks), list(ticks.values()))
        _compare(axes, lines or {}, percent, horizontal=True)
        _legend(axes, len(series))
    return stem.with_name(stem.name + ".png")


def bars(
    stem: Path,
    names: Sequence[str],
    series: Mapping[str, Series],
    *,
    title: str,
    y_label: str,
    subtitle: str = "",
    lines: Mapping[str, float] | None = None,
    percent: bool = False,
    horizontal: bool = False,
    show_values: bool | None = None,
) -> Path:
    """Label -> a bar for every name, side by side, with whiskers where it has low and high. Returns the PNG.

    horizontal: names down the side, for long names. show_values: write them at the bars (default: up to 24 bars).
    """
    count = len(names) * len(series)
    shown = count <= 24 if show_values is None else show_values
    thick, room = 0.8 / len(series), 0.12 if shown else 0.05
    if horizontal:
        size = (7.0, 0.9 + (0.2 if count <= 24 else 0.15) * count + 0.1 * len(names))
    else:
        size = (max(7.0, 0.2 * count + 1.5), 4.0)
    with figure(stem, title, subtitle, *size) as axes:
        places = np.arange(len(names), dtype=float)
        for i, (label, one) in enumerate(series.items()):
            at, values = places + (i - (len(series) - 1) / 2) * thick, np.asarray(one.y, float)
            draw = axes.barh if horizontal else axes.bar
            draw(at, values, 0.92 * thick, color=PALETTE[i % len(PALETTE)], label=label)
            tips = values
            if one.low is not None and one.high is not None:
                whiskers = np.abs(np.stack([values - np.asarray(one.low), np.asarray(one.high) - values]))
                look: Any = {"fmt": "none", "ecolor": _INK, "elinewidth": 1, "capsize": 2}
                if horizontal:
                    axes.errorbar(values, at, xerr=whiskers, **look)
                else:
                    axes.errorbar(at, values, yerr=whiskers, **look)
                tips = np.asarray(one.high, float)
            if shown:
                _write_values(axes, at, values, tips, percent, horizontal)
        if horizontal:
            axes.set_yticks(places, names)
            axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
            axes.margins(x=room)
            axes.set_xlabel(y_label)
            axes.tick_params(axis="y", length=0)
        else:
            room_of_name = max(5, int(10 * size[0] / len(names)))  # letters
            axes.set_xticks(places, [textwrap.fill(name, room_of_name, break_long_words=False) for name in names])
            axes.set_xlim(-0.6, len(names) - 0.4)
            axes.margins(y=room)
            axes.set_ylabel(y_label)
            axes.tick_params(axis="x", length=0)
        axes.grid(axis="x" if horizontal else "y")
        _compare(axes, lines or {}, percent, horizontal=not horizontal)
        _legend(axes, len(series))
    return stem.with_name(stem.name + ".png")


def heat_map(
    stem: Path,
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    color_label: str,
    subtitle: str = "",
    x_label: str = "",
    y_label: str = "",
    percent: bool = False,
    limits: tuple[float, float] | None = None,
) -> Path:
    """A matrix as colours with the number in every cell. Returns the PNG.

    limits: values of the lightest and the darkest colour (default: those found). NaN cells stay empty.
    """
    matrix = np.asarray(values, float)
    low, high = limits if limits is not None else (float(np.nanmin(matrix)), float(np.nanmax(matrix)))
    width, height = 2.6 + 0.52 * len(columns), 1.2 + 0.46 * len(rows)
    with figure(stem, title, subtitle, max(width, 5.6), height) as axes:
        image = axes.imshow(matrix, cmap="YlGnBu", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                dark = (value - low) / max(high - low, 1e-12) > 0.55
                text = f"{100 * value:.0f}" if percent else f"{value:.2f}"
                axes.text(column, row, text, ha="center", va="center", color="white" if dark else _INK, fontsize=8.5)
        slanted = max(map(len, columns), default=0) > 5
        axes.set_xticks(
            range(len(columns)), columns, rotation=35 if slanted else 0, ha="right" if slanted else "center"
        )
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        # white lines between cells
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        scale = axes.figure.colorbar(image, ax=axes, label=color_label, fraction=0.05, pad=0.02)
        scale.outline.set_visible(False)  # type: ignore[operator]
        if percent:
            scale.ax.yaxis.set_major_formatter(_percent())
    return stem.with_name(stem.name + ".png")


def _percent() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.4g} %")


def _told(value: float, percent: bool) -> str:
    """A number in few letters: "5.4 %", "53 %", "0.24"."""
    if percent:
        return f"{100 * value:.2g} %" if abs(value) < 0.0995 else f"{100 * value:.0f} %"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _write_values(
    axes: Axes, at: np.ndarray, values: np.ndarray, tips: np.ndarray, percent: bool, horizontal: bool
) -> None:
    side: Any = {"ha": "left", "va": "center"} if horizontal else {"ha": "center", "va": "bottom"}
    for place, value, tip in zip(at, values, tips, strict=True):
        if np.isfinite(value):
            text = _told(value, percent)
            # upright bars stand too close for percent signs; the axis has them
            text = text if horizontal else text.removesuffix(" %")
            xy, shift = ((tip, place), (4, 0)) if horizontal else ((place, tip), (0, 3))
            axes.annotate(text, xy, shift, textcoords="offset points", fontsize=8, color=_INK, **side)


def _compare(axes: Axes, lines: Mapping[str, float], percent: bool, horizontal: bool) -> None:
    """Dashed lines with their label outside the axes, and the percent signs of the axis of values."""
    for label, value in lines.items():
        text = f"{label}: {_told(value, percent)}"
        if horizontal:
            axes.axhline(value, color=_FAINT, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1.5)
            axes.annotate(
                textwrap.fill(text, 14), (1.01, value), xycoords=("axes fraction", "data"), color=_FAINT, va="center",
                fontsize=8.5,
            )  # fmt: skip
        else:
            axes.axvline(value, color=_FAINT, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1.5)
            axes.annotate(
                text, (value, 1.0), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                color=_FAINT, ha="center", va="bottom", fontsize=8.5,
            )  # fmt: skip
    if percent:
        (axes.yaxis if horizontal else axes.xaxis).set_major_formatter(_percent())


def _legend(axes: Axes, count: int) -> None:
    """Below the axes, where it hides nothing; left out for one series."""
    if count > 1:
        handles, labels = axes.get_legend_handles_labels()
        columns = max(1, min(count, int(80 / (max(map(len, labels)) + 6))))
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=columns)
