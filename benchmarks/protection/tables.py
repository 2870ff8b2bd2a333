"""The tables of the protected method: against CNS pair by pair, first lessons in a scene or style, long runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.paper.entries import Entry, Table, count, number, spread, word
from benchmarks.paper.lines import (
    ATTRIBUTES,
    CLIP_I,
    FOUND,
    Measure,
    Run,
    Sample,
    Where,
    at_end,
    control_kept,
    estimate,
    gather,
    known,
    mean,
    of_concepts,
    of_runs,
    paired,
    pick,
    share,
    when_new,
)
from benchmarks.paper.tables import concept_scores, ends
from benchmarks.protection.experiments import VARIANT
from cns_jax.evals.scores import SINGLE, TOGETHER

_TEN = 10
_GOOD = 80  # per cent of pictures, from which a concept counts as learned


class Pair(NamedTuple):
    """CNS's runs, and those of the protected method on the same sets, seeds and orders."""

    cns: list[Run]
    protected: list[Run]

    @classmethod
    def of(cls, runs: Sequence[Run], others: Sequence[Run], group: str) -> Pair:
        """runs: among which the protected ones are; others: with CNS's."""
        own, old = pick(runs, group, VARIANT), pick(others, group)
        keys = {_key(run) for run in own} & {_key(run) for run in old}
        return cls(*([run for run in some if _key(run) in keys] for some in (old, own)))


def _key(run: Run) -> tuple[int, int, int]:
    return (*run.key, run.line["order"])


Samples = Callable[[Sequence[Run]], list[Sample]]


def _cells(measure: Measure, where: Where) -> Samples:
    return lambda runs: gather(runs, measure, where)


def _each(value: Callable[[Run], float | None]) -> Samples:
    return lambda runs: of_runs(runs, value)


MEASURED: dict[str, tuple[Samples, int]] = {
    "found right after its lesson, %": (_cells(FOUND, when_new), 1),
    "found at the end, %": (_cells(FOUND, at_end(SINGLE)), 1),
    "since its lesson, points of found": (lambda runs: of_concepts(runs, FOUND, "backward_transfer"), 1),
    "attributes right after its lesson, %": (_cells(ATTRIBUTES, when_new), 1),
    "attributes at the end, %": (_cells(ATTRIBUTES, at_end(SINGLE)), 1),
    "CLIP-I right after its lesson": (_cells(CLIP_I, when_new), 1),
    "CLIP-I at the end": (_cells(CLIP_I, at_end(SINGLE)), 1),
    "two or three concepts in a prompt: all found, %": (_cells(FOUND, at_end(TOGETHER)), 1),
    "two or three concepts: attributes, %": (_cells(ATTRIBUTES, at_end(TOGETHER)), 1),
    "control kept, % of the base model's": (_each(control_kept), 1),
    "pictures without a concept unchanged (cosine)": (_each(lambda run: known(run.line, "zero_shot", "unchanged")), 3),
}
"""Label -> its samples, and digits."""


def compared(pair: Pair) -> Table:
    """CNS, protected, and the difference."""
    rows = [] if not pair.protected else [*_measured_rows(pair), *_single_rows(pair)]
    note = (
        f"{len(pair.protected)} runs of each, same sets, seeds, prompts and noise. Difference: protected minus CNS, "
        "paired, with its 95 % interval; where an interval is missing, a row has one number a method. A concept counts "
        f"as learned if at least {_GOOD} % of its pictures right after its lesson show it, mean over seeds. First "
        "concept keeps: what is left of its score after all lessons. Seconds were taken on two CPU cores that other "
        "work used too, CNS's on another day; without programs' compilation."
    )
    return Table(
        "compared", "compared", "CNS and the protected method", note, ["", "CNS", "protected", "difference"], rows
    )


def _measured_rows(pair: Pair) -> Iterator[list[Entry]]:
    for label, (samples, digits) in MEASURED.items():
        old, own = samples(pair.cns), samples(pair.protected)
        change = spread(paired(own, old), digits, signed=True)
        yield [word(label), spread(estimate(old), digits), spread(estimate(own), digits), change]


def _single_rows(pair: Pair) -> Iterator[list[Entry]]:
    good = [_good(runs) for runs in pair]
    cells = [Entry(f"{some} of {whole}", [some, whole]) for some, whole in good]
    yield [word(f"concepts found in at least {_GOOD} % right after their lesson"), *cells, _gap(*(g[0] for g in good))]
    for measure in (FOUND, ATTRIBUTES, CLIP_I):
        kept = [share(*reversed(ends(runs, measure))) for runs in pair]
        label = f"first concept keeps, % of its {measure.label}"
        yield [word(label), *(number(x, 0) for x in kept), _gap(*kept)]
    for label, value, digits in (
        ("steps a lesson", lambda run: known(run.line, "train", "steps"), 0),
        ("seconds a lesson, prior images and selection among them", seconds, 0),
    ):
        means = [mean(of_runs(runs, value)) for runs in pair]
        yield [word(label), *(number(x, digits) for x in means), _gap(*means)]


def _gap(old: float, own: float) -> Entry:
    change = own - old
    return number(change, 0) if not math.isfinite(change) else Entry(f"{change:+.0f}", change)


def _good(runs: Sequence[Run]) -> tuple[int, int]:
    names = dict.fromkeys(name for run in runs for name in run.line["concepts"])
    scores = [x for name in names if math.isfinite(x := mean(concept_scores(runs, name, FOUND, False)))]
    return sum(x >= _GOOD for x in scores), len(scores)


def seconds(run: Run) -> float | None:
    """Of a lesson, with all that it needs but what is compiled once."""
    parts = [known(run.line, "timings", part) or 0.0 for part in ("encode", "priors", "select", "protect", "train")]
    return sum(parts) / run.last if sum(parts) else None


def orders(pair: Pair) -> Table:
    """What is kept of a scene or a style that is taught first."""
    rows = []
    for old, own in zip(*(sorted(runs, key=_key) for runs in pair), strict=True):
        cells = []
        for measure in (FOUND, CLIP_I):
            for run in (old, own):
                new, end = ends([run], measure)
                told = f"{new:.0f} → {end:.0f}" + (f" ({share(end, new):.0f} %)" if new else "")
                cells.append(Entry(told, [new, end]) if math.isfinite(new + end) else number(None))
        first = own.line["concepts"][0].replace("_", " ")
        rows.append([word(str(own.key[0])), word(first), *cells])
    head = ["set", "first lesson", "found: CNS", "found: protected", "CLIP-I: CNS", "CLIP-I: protected"]
    note = (
        "The first concept right after its lesson → after all seven (what is left of it), of one seed: a scene or a "
        "style fills a whole picture, and is what CNS forgets most. Ten pictures each."
    )
    return Table("orders", "orders", "A scene or a style first", note, head, rows)


def concepts(pair: Pair) -> Table:
    """Each concept right after its lesson and at the end."""
    rows = []
    places = dict.fromkeys((run.key[0], name) for run in pair.protected for name in run.line["concepts"])
    for place, name in sorted(places, key=lambda one: one[0]):
        some = [[run for run in runs if run.key[0] == place] for runs in pair]
        cells = [
            number(mean(concept_scores(runs, name, measure, end)), 0)
            for measure in (FOUND, CLIP_I)
            for runs in some
            for end in (False, True)
        ]
        moved = mean(of_runs(some[1], lambda run, name=name: moved_at_end(run).get(name)))  # type: ignore[misc]
        rows.append([word(str(place)), word(name.replace("_", " ")), count(some[1]), *cells, number(100 * moved, 2)])
    head = ["set", "concept", "seeds"]
    for measure in (FOUND, CLIP_I):
        head += [f"{measure.label}, CNS: new", "at end", f"{measure.label}, protected: new", "at end"]
    note = (
        "Means over seeds, prompts and pictures. Moved: how much of the energy of the concept's keys and values has "
        "changed since its own lesson under the protected method, mean over layers, as its certificate says."
    )
    return Table("concepts", "concepts", "Concept by concept", note, [*head, "moved, %"], rows)


def moved_at_end(run: Run) -> dict[str, float]:
    """Concept -> relative change of its keys and values from its lesson to the end, by the run's last certificate."""
    rows = run.line.get("certificate") or []
    return {change["name"]: change["mean"] for change in rows[-1]} if rows else {}


def long_runs(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """Length -> the lines of that long run, after more and more lessons."""
    own = sorted(pick(runs, "long", VARIANT), key=lambda run: run.last)
    return {n: [run for run in own if run.line["number"] == n] for n in sorted({run.line["number"] for run in own})}


def per_concept(run: Run, measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    """Score of every concept right after its lesson, and at the end."""
    matrix = run.matrix(measure)
    return matrix.diagonal(), matrix[-1]


def long(runs: Sequence[Run]) -> Table:
    """Many concepts in a row, a column a run."""
    named = {n: (lines[-1], _long_cells(lines)) for n, lines in long_runs(runs).items()}
    labels = next((list(cells) for _, cells in named.values()), [])
    rows = [[word(label), *(cells[label] for _, cells in named.values())] for label in labels]
    note = (
        "One run each, seed 0. 20 concepts: of the three sets in turn. 50: the sets' 21 and 29 drawn variations, "
        "spread so that the first ten are a mixture like the last ten. Moved: how much of the energy of a concept's "
        "keys and values has changed since its own lesson, by the last certificate."
    )
    head = [
        f"{length} concepts" + (f", {run.last} so far" if run.last < length else "")
        for length, (run, _) in named.items()
    ]
    return Table("long", "long", "Many concepts in a row", note, ["", *head], rows)


def _long_cells(lines: Sequence[Run]) -> dict[str, Entry]:
    """Label -> the cell of one long run. lines: after more and more lessons."""
    last = lines[-1]
    cells = {}
    for measure in (FOUND, ATTRIBUTES, CLIP_I):
        new, end = per_concept(last, measure)
        cells[f"{measure.label}: right after its lesson, mean"] = number(float(new.mean()))
        cells[f"{measure.label}: at the end, mean"] = number(float(end.mean()))
    new, end = per_concept(last, FOUND)
    first, late = float(new[:_TEN].mean()), float(new[-_TEN:].mean())
    after = [float(run.matrix(FOUND)[-1, :_TEN].mean()) for run in lines]
    cells["found, first ten: right after their lessons"] = number(first)
    cells["found, first ten: after so many lessons"] = Entry(
        ", ".join(f"{run.last}: {x:.0f}" for run, x in zip(lines, after, strict=True)), after
    )
    cells["first ten keep, % of their found"] = number(share(after[-1], first), 0)
    cells["found, last ten: right after their lessons"] = number(late)
    cells["last ten learned, % of the first ten's found"] = number(share(late, first), 0)
    moved = list(moved_at_end(last).values()) or [math.nan]
    cells["moved, %: median concept"] = number(100 * float(np.median(moved)), 2)
    cells["moved, %: the concept that moved most"] = number(100 * max(moved), 2)
    cells["control kept, % of the base model's"] = number(control_kept(last))
    cells["pictures without a concept unchanged (cosine)"] = number(known(last.line, "zero_shot", "unchanged"), 3)
    cells["seconds a lesson"] = number(seconds(last), 0)
    return cells
