"""The lines of benchmarks/results/paper/runs.jsonl as numbers: runs, their cells, means with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cns_jax.evals.bootstrap import Estimate, difference, interval
from cns_jax.evals.clip_scores import clip_score
from cns_jax.evals.forgetting import by_concept
from cns_jax.evals.scores import FIELDS, PLAIN, SINGLE

NUMBERS = (*FIELDS, "clip_i_others", "attributes")
"""Of a cell, in the order of the lines; older lines have fewer."""

VARIANTS = {
    "cns": "CNS",
    "no_lreg": "without L_reg",
    "random": "random neurons",
    "full_kv": "full K/V",
    "token": "token only",
}
"""Of the ablations, in the order of the tables, under their plain names."""

INTERVALS = (
    "In brackets: 95 % bootstrap intervals. A resample draws sets, then concepts within each, and keeps all prompts "
    "and seeds of a concept together, since they succeed and fail together; with a single set it draws seeds and "
    "concepts. Where only one concept of each set is looked at (Fig. 5), its prompts are drawn instead; where a run "
    "has a single number (control), its runs. Simulated with 3 sets, 3 seeds, 35 prompts and variances that we "
    "assumed, intervals over concepts hold the truth of new sets in about 90 % of cases for scores and 95 % for paired "
    "differences (over prompts: 65 and 90 %)."
)


class Measure(NamedTuple):
    """field: one of NUMBERS; scaled: from its mean over a prompt's pictures to the number in tables."""

    field: str
    label: str
    scaled: Callable[[float], float]


FOUND = Measure("found", "found", lambda x: 100 * x)
ATTRIBUTES = Measure("attributes", "attributes", lambda x: 100 * x)
CLIP_I = Measure("clip_i", "CLIP-I", lambda x: 100 * x)
CLIP_T = Measure("clip_t", "CLIP-T", lambda x: 100 * float(clip_score(np.asarray(x))))
OTHERS = Measure("clip_i_others", "CLIP-I with other concepts", lambda x: 100 * x)
COSINE = Measure("clip_t", "CLIP-T, cosine", lambda x: x)
MEASURES = (FOUND, ATTRIBUTES, CLIP_I, CLIP_T)


class Cell(NamedTuple):
    """One prompt at one stage; means: of each of NUMBERS over its pictures, NaN where nothing was measured."""

    stage: int
    kind: str
    prompt: str
    concepts: tuple[int, ...]
    means: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A line, its cells as records."""

    line: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Run:
        """From a line of the results file, in memory or read back."""
        cells = []
        for stage, kind, prompt, concepts, _, *means in line["cells"]:
            known = {name: float(x) for name, x in zip(NUMBERS, means, strict=False) if x is not None}
            cells.append(Cell(stage, kind, prompt, tuple(concepts), dict.fromkeys(NUMBERS, math.nan) | known))
        return cls(line, tuple(cells))

    @property
    def key(self) -> tuple[int, int]:
        """Set and seed: equal for methods that can be compared pair by pair."""
        return self.line["number"], self.line["seed"]

    @property
    def last(self) -> int:
        """The stage after all lessons."""
        return len(self.line["concepts"])

    def names(self, cell: Cell) -> tuple[str, ...]:
        """The concepts that a cell's prompt asks for."""
        return tuple(self.line["concepts"][i] for i in cell.concepts)

    def matrix(self, measure: Measure) -> np.ndarray:
        """Score of each concept after each lesson (stages, concepts); NaN where nothing was measured."""
        matrix = np.full((self.last, self.last), math.nan)
        places: dict[tuple[int, int], list[float]] = {}
        for cell in self.cells:
            if cell.kind == SINGLE and 0 < cell.stage <= self.last:
                places.setdefault((cell.stage - 1, cell.concepts[0]), []).append(cell.means[measure.field])
        for place, values in places.items():
            matrix[place] = np.mean([measure.scaled(x) for x in values])
        return matrix

    def forgetting(self, measure: Measure) -> dict[str, tuple[float, ...]]:
        """What was learned and forgotten of each concept, by the fields of `Forgetting`; empty if not measured."""
        try:
            return by_concept(self.matrix(measure))
        except ValueError:
            return {}


def pick(runs: Iterable[Run], group: str, variant: str = "cns") -> list[Run]:
    """The runs of one group and variant."""
    return [run for run in runs if (run.line["group"], run.line["variant"]) == (group, variant)]


def variants(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Plain name -> runs of the main experiments, of the variants that have any; other runs by their own names."""
    own = {run.line["variant"]: run.line["variant"] for run in runs if run.line["group"] == "main"}
    names = VARIANTS | {variant: name for variant, name in own.items() if variant not in VARIANTS}
    found = {name: pick(runs, "main", variant) for variant, name in names.items()}
    return {name: some for name, some in found.items() if some}


Where = Callable[[Run, Cell], bool]


def at_end(kind: str) -> Where:
    """Prompts of a kind, after all lessons."""
    return lambda run, cell: cell.kind == kind and cell.stage == run.last


def when_new(run: Run, cell: Cell) -> bool:
    """Every concept right after its own lesson."""
    return cell.kind == SINGLE and cell.stage == cell.concepts[0] + 1


def known_at(stage: int) -> Where:
    """All concepts known at a stage."""
    return lambda run, cell: cell.kind == SINGLE and cell.stage == stage


def concept_at(stage: int, concept: int) -> Where:
    """One concept, by its place in the order of lessons, at one stage."""
    return lambda run, cell: cell.kind == SINGLE and cell.stage == stage and cell.concepts == (concept,)


def without_token(end: bool) -> Where:
    """Single prompts without their token, by the base model or after all lessons."""
    return lambda run, cell: cell.kind == PLAIN and cell.stage == (run.last if end else 0)


class Sample(NamedTuple):
    """One value. key: what makes it the same prompt for two methods; label: what is drawn in one piece."""

    number: int
    seed: int
    key: Hashable
    label: Hashable
    value: float


def gather(runs: Iterable[Run], measure: Measure, where: Where) -> list[Sample]:
    """The measured cells that `where` wants."""
    found = []
    for run in runs:
        number, seed = run.key
        for cell in run.cells:
            value = measure.scaled(cell.means[measure.field])
            if where(run, cell) and math.isfinite(value):
                key = (run.line["order"], cell.kind, cell.prompt)
                found.append(Sample(number, seed, key, (number, run.names(cell)), value))
    # a single concept a set (as in Fig. 5): then its prompts are drawn
    few = len({s.label for s in found}) == len({s.number for s in found})
    return [s._replace(label=(s.number, s.key)) for s in found] if few else found


def of_runs(runs: Iterable[Run], value: Callable[[Run], float | None]) -> list[Sample]:
    """A value a run, where there is one."""
    values = [(run, value(run)) for run in runs]
    return [Sample(*run.key, "", run.key, x) for run, x in values if x is not None and math.isfinite(x)]


def of_concepts(runs: Iterable[Run], measure: Measure, field: str) -> list[Sample]:
    """A field of `Forgetting`, its value for each concept of each run that has one."""
    found = []
    for run in runs:
        values = run.forgetting(measure).get(field, ())
        for name, value in zip(run.line["concepts"], values, strict=False):  # the last one has had no later lesson
            found.append(Sample(*run.key, (run.line["order"], name), (run.key[0], (name,)), value))
    return found


def estimate(samples: Sequence[Sample]) -> Estimate | None:
    """Mean and interval; None if there is nothing."""
    return interval([s.value for s in samples], **_drawn(samples)) if samples else None


def paired(first: Sequence[Sample], second: Sequence[Sample]) -> Estimate | None:
    """First minus second on the sets, seeds and prompts that both have; None if there are none."""
    other = {(s.number, s.seed, s.key): s.value for s in second}
    both = [s for s in first if (s.number, s.seed, s.key) in other]
    values = [s.value for s in both]
    return difference(values, [other[s.number, s.seed, s.key] for s in both], **_drawn(both)) if both else None


def _drawn(samples: Sequence[Sample]) -> dict[str, Any]:
    """See INTERVALS."""
    alone = len({s.number for s in samples}) == 1
    runs, labels = [s.seed if alone else s.number for s in samples], [s.label for s in samples]
    complete = len(set(zip(runs, labels, strict=True))) == len(set(runs)) * len(set(labels))
    return {"runs": runs, "prompts": labels, "shared_prompts": alone and complete}


def mean(samples: Sequence[Sample]) -> float:
    """NaN if there is nothing."""
    return float(np.mean([s.value for s in samples])) if samples else math.nan


def known(line: Mapping[str, Any], *path: str) -> float | None:
    """The number at a path of names, None where a name, or the number, is not there."""
    value: Any = line
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def control(run: Run) -> dict[str, tuple[float, float]]:
    """Attribute -> share that the judge finds right in pictures without a concept, before and after all lessons."""
    names = ((run.line.get("zero_shot") or {}).get("control") or {}).get("before") or {}
    found = {}
    for name in names:
        before, after = (known(run.line, "zero_shot", "control", when, name) for when in ("before", "after"))
        if before and after is not None:
            found[name] = before, after
    return found


def control_kept(run: Run) -> float | None:
    """Control after all lessons in per cent of the base model's, mean over attributes."""
    pairs = list(control(run).values())
    return 100 * sum(after for _, after in pairs) / sum(before for before, _ in pairs) if pairs else None


def of_line(runs: Iterable[Run], *path: str) -> float:
    """Mean over the runs' lines of the number at a path of names; NaN where none has it."""
    return mean(of_runs(runs, lambda run: known(run.line, *path)))


def of_rows(field: str, name: str, first: int = 0) -> Callable[[Run], float | None]:
    """Mean over the rows of a line's field, from row `first` on, of one of their numbers; None if there are none."""

    def value(run: Run) -> float | None:
        values = [x for row in (run.line.get(field) or [])[first:] if (x := known(row, name)) is not None]
        return float(np.mean(values)) if values else None

    return value


def share(part: float, whole: float) -> float:
    """In per cent; NaN if there is no whole."""
    return 100 * part / whole if whole else math.nan
