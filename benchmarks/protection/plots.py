"""The figures of the protected method: long runs by concept, and the certificate against what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.paper.entries import Figure, numbers_of
from benchmarks.paper.lines import FOUND, Run
from benchmarks.protection.certificates import Point, running_median
from benchmarks.protection.tables import long_runs, per_concept
from cns_jax.evals.figures import PALETTE, Series, curves, figure

_FEW = 5  # concepts a point of a long run's curve


def long(runs: Sequence[Run], folder: Path) -> Iterator[Figure]:
    """Found by place in the order of lessons, when new and at the end."""
    for length, lines in long_runs(runs).items():
        run = lines[-1]
        new, end = (_means(values) / 100 for values in per_concept(run, FOUND))
        at = [float(i * _FEW + 1) for i in range(len(new))]
        series = {"right after its lesson": Series(new.tolist()), f"after {run.last} lessons": Series(end.tolist())}
        file = curves(
            folder / f"long_{length}", at, series, percent=True, markers=True, y_range=(0, 1.03),
            ticks={x: f"{x:.0f}-{min(x + _FEW - 1, run.last):.0f}" for x in at},
            title=f"{run.last} concepts in a row: are late ones learned, and early ones kept?",
            subtitle=f"The protected method, one run; means of {_FEW} concepts, ten pictures each.",
            x_label="concepts, in the order of their lessons", y_label="pictures, found",
        )  # fmt: skip
        reading = f"{run.last} concepts: the gap between the curves is forgetting; a falling first curve, lost room."
        yield Figure("long", "long", file, reading, numbers_of(series, at))


def _means(values: np.ndarray) -> np.ndarray:
    return np.asarray([values[i : i + _FEW].mean() for i in range(0, len(values), _FEW)])


def certificate(named: Mapping[str, Sequence[Point]], medians: Sequence[Point], folder: Path) -> Iterator[Figure]:
    """What is left of concepts by how far they have moved. named: label -> its points; medians: of whose running
    medians a line is drawn."""
    named = {label: points for label, points in named.items() if points}
    if not named:
        return
    rng = np.random.default_rng(0)
    stem = folder / "certificate"
    with figure(
        stem, "What does the certificate say of what is left?",
        "Each dot: a concept after a later lesson. Its found score is of ten pictures, so dots are shifted a little at "
        "random to be told apart.",
    ) as axes:  # fmt: skip
        for i, (label, points) in enumerate(named.items()):
            drift, kept = np.asarray(points).T
            noise = rng.uniform(-0.015, 0.015, len(kept))
            axes.scatter(100 * drift, kept + noise, s=9, alpha=0.45, linewidths=0, color=PALETTE[i], label=label)
        line = np.asarray(running_median(medians))
        if len(line):
            axes.plot(100 * line[:, 0], line[:, 1], color="black", linewidth=2, label="running median")
        axes.set_xscale("log")
        axes.set_ylim(-0.05, 2.05)
        axes.set_xlabel("moved since its own lesson: keys and values, % of their energy (log)")
        axes.set_ylabel("found, as a share of that when it was new")
        axes.grid(axis="y")
        axes.figure.legend(loc="outside lower center", ncols=2)
    reading = "Left: hardly moved. A concept keeps its score as long as the line stays at 1."
    data = {label: [[float(x) for x in point] for point in points] for label, points in named.items()}
    yield Figure("certificate", "certificate", stem.with_name("certificate.png"), reading, data)
