"""Tables beside the paper's: control without concepts, orders, thresholds, masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.paper.entries import Entry, Table, count, number, spread, word
from benchmarks.paper.lines import (
    ATTRIBUTES,
    CLIP_I,
    FOUND,
    OTHERS,
    Run,
    at_end,
    control,
    control_kept,
    estimate,
    gather,
    known,
    mean,
    of_concepts,
    of_line,
    of_rows,
    of_runs,
    paired,
    pick,
    share,
    variants,
    when_new,
    without_token,
)
from benchmarks.paper.reasons import NAMES
from benchmarks.paper.tables import ends, told
from cns_jax.evals.scores import SINGLE, TABLE_SCALES


def zero_shot(runs: Sequence[Run]) -> list[Table]:
    """What lessons do to pictures without concepts."""
    return [_control(runs), _unchanged(runs), _leakage(runs)]


def attributes_kept(runs: Sequence[Run]) -> tuple[list[str], dict[str, list[float]]]:
    """The control's attributes, and each variant's share of the base model's control of them, in per cent."""
    found = {label: [control(run) for run in own] for label, own in variants(runs).items()}
    found = {label: [one for one in some if one] for label, some in found.items() if any(some)}
    attributes = list(dict.fromkeys(name for some in found.values() for one in some for name in one))
    return attributes, {label: [_kept(some, a) for a in attributes] for label, some in found.items()}


def _kept(found: Sequence[Mapping[str, tuple[float, float]]], attribute: str) -> float:
    pairs = [one[attribute] for one in found if attribute in one]
    return share(sum(after for _, after in pairs), sum(before for before, _ in pairs))


def _control(runs: Sequence[Run]) -> Table:
    attributes, kept = attributes_kept(runs)
    named = variants(runs)
    rows = []
    if attributes:
        every = [c for own in named.values() for run in own if (c := control(run))]
        base = (number(100 * float(np.mean([one[a][0] for one in every if a in one]))) for a in attributes)
        rows.append([word("base model: % right"), Entry(""), Entry(""), *base])
        for label, values in kept.items():
            whole = of_runs(named[label], control_kept)
            rows.append([word(label), count(whole), spread(estimate(whole)), *map(number, values)])
    note = (
        "Pictures of prompts without any concept that show what was asked for, after all lessons, in per cent of the "
        "base model's share: all attributes together, then one by one."
    )
    return Table(
        "zero_shot", "control", "Control kept", note, ["", "runs", "all, %", *(NAMES[a] for a in attributes)], rows
    )


def _unchanged(runs: Sequence[Run]) -> Table:
    rows = []
    for label, own in variants(runs).items():
        clip_t = (number(TABLE_SCALES["clip_t"] * of_line(own, "zero_shot", "clip_t", w)) for w in ("before", "after"))
        rows.append([word(label), count(own), number(of_line(own, "zero_shot", "unchanged"), 3), *clip_t])
    note = (
        "Prompts without a concept. Unchanged: cosine between the pictures of a prompt before and after all lessons; "
        "CLIP-T: 100 x 2.5 x their cosine with the prompt."
    )
    return Table("zero_shot", "unchanged", "Unchanged pictures", note, ["", "runs", "unchanged", *_WHEN], rows)


_WHEN = ("CLIP-T: before", "after")


def _leakage(runs: Sequence[Run]) -> Table:
    rows = []
    for label, own in variants(runs).items():
        cells = []
        for measure in (FOUND, ATTRIBUTES, CLIP_I):
            before, after = (gather(own, measure, without_token(end)) for end in (False, True))
            cells += [number(mean(before)), spread(paired(after, before), signed=True)]
        new, end = gather(own, OTHERS, when_new), gather(own, OTHERS, at_end(SINGLE))
        rows.append([word(label), count(own), *cells, number(mean(new)), spread(paired(end, new), signed=True)])
    note = (
        "A concept where its token is not in the prompt. Without tokens: the concepts' prompts written without them, "
        "by the base model, which shows some attributes by chance, and what all lessons change. Other concepts: CLIP-I "
        "of a concept's pictures with those of all others, right after its lesson and what later lessons change. "
        "Leakage is where an interval lies above 0."
    )
    head = ["", "runs", "without tokens: found, %", "change", "attributes, %", "change", "CLIP-I", "change"]
    head += ["other concepts: CLIP-I", "change"]
    return Table("zero_shot", "leakage", "Leakage", note, head, rows)


def by_order(runs: Sequence[Run]) -> dict[tuple[int, int], list[Run]]:
    """Set and order -> the runs of CNS, on the sets and seeds of the other orders; the set's own order is 0."""
    found: dict[tuple[int, int], list[Run]] = {}
    for run in _beside(pick(runs, "order"), runs):
        found.setdefault((run.key[0], run.line["order"]), []).append(run)
    return dict(sorted(found.items()))


def _beside(own: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
    """These runs, and those of CNS itself on the same sets and seeds."""
    keys = {run.key for run in own}
    return [*own, *(run for run in pick(runs, "main") if run.key in keys)]


def orders(runs: Sequence[Run]) -> list[Table]:
    """The same concepts in other orders, by CNS."""
    found = by_order(runs)
    rows = []
    for (place, _), own in found.items():
        cells = [number(mean(of_runs(own, told(m, name)))) for m in (FOUND, CLIP_I) for name in ("learning", "average")]
        new, end = ends(own, FOUND)
        first = own[0].line["concepts"][0].replace("_", " ")
        rows.append([word(str(place)), word(first), count(own), *cells, number(share(end, new), 0, " %")])
    head = [
        "set",
        "first lesson",
        "runs",
        "found, %: learned",
        "final",
        "CLIP-I: learned",
        "final",
        "first concept kept",
    ]
    note = "CNS on the same concepts, begun elsewhere in the set's order; means over seeds."
    values = Table("orders", "orders", "Other orders", note, head, rows)
    turned = [run for own in found.values() for run in own]
    sets = {run.key[0] for run in turned}
    return [values, _order_spread(turned, [run for run in pick(runs, "main") if run.key[0] in sets])]


def _order_spread(turned: Sequence[Run], seeds: Sequence[Run]) -> Table:
    rows = []
    for measure in (FOUND, CLIP_I) if turned else ():
        for name, label in (("learning", "learned"), ("average", "final")):
            by_order = _deviation(turned, told(measure, name), lambda run: run.key)
            by_seed = _deviation(seeds, told(measure, name), lambda run: run.key[0])
            rows.append([word(measure.label), word(label), number(by_order, 2), number(by_seed, 2)])
    note = (
        "Standard deviation in points, pooled over sets: among orders at the same seed, and among seeds at the set's "
        "own order. The order matters where the first is clearly larger; chance is in both."
    )
    return Table("orders", "order_spread", "Orders against seeds", note, ["", "", "among orders", "among seeds"], rows)


def _deviation(runs: Sequence[Run], value: Callable[[Run], float | None], group: Callable[[Run], Any]) -> float:
    """Root of the pooled variance within groups; NaN if no group has two values."""
    groups: dict[Any, list[float]] = {}
    for run in runs:
        if (x := value(run)) is not None:
            groups.setdefault(group(run), []).append(x)
    some = [g for g in groups.values() if len(g) > 1]
    freedom = sum(len(g) - 1 for g in some)
    return math.sqrt(sum((len(g) - 1) * float(np.var(g, ddof=1)) for g in some) / freedom) if freedom else math.nan


def by_ratio(runs: Sequence[Run]) -> dict[float, list[Run]]:
    """Threshold -> its runs, on the sets and seeds of the sweep; CNS itself among them."""
    found: dict[float, list[Run]] = {}
    for run in _beside([run for run in runs if run.line["group"] == "ratio"], runs):
        if (ratio := known(run.line, "method", "ratio")) is not None:
            found.setdefault(ratio, []).append(run)
    return dict(sorted(found.items()))


def thresholds(runs: Sequence[Run]) -> Table:
    """How many inputs of each output unit are selected."""
    rows = []
    for ratio, own in by_ratio(runs).items():
        fields = ((FOUND, "learning"), (FOUND, "average"), (FOUND, "forgetting"), (CLIP_I, "average"))
        cells = [spread(estimate(of_concepts(own, *field))) for field in fields]
        cells.append(spread(estimate(of_runs(own, control_kept))))
        size = number(100 * mean(of_runs(own, of_rows("masks", "mask_share"))), 1)
        rows.append([number(100 * ratio, 0, " %"), count(own), size, *cells])
    note = "The method's threshold is 30 %. Mask: a concept's weights in per cent of K/V; control: of the base model."
    head = ["threshold", "runs", "mask, %", "found, %: learned", "final", "forgetting", "CLIP-I: final", "control, %"]
    return Table("threshold", "thresholds", "Threshold of the selection", note, head, rows)


def masks(runs: Sequence[Run]) -> Table:
    """Sections 9.2 and 9.3 of the paper."""
    own = pick(runs, "main")
    some = {f"CNS, set {n}": [r for r in own if r.key[0] == n] for n in sorted({r.key[0] for r in own})}
    some |= {"random neurons, all sets": pick(runs, "main", "random")}
    rows = []
    for label, group in some.items():
        if group:
            shares = (
                of_rows("masks", "base_share"),
                of_rows("masks", "mask_share"),
                of_rows("masks", "regularized_of_mask", first=1),
            )
            sizes = (number(100 * mean(of_runs(group, value)), 1) for value in shares)
            ious = (number(of_line(group, "overlaps", name), 3) for name in ("pairwise_iou", "joint_iou"))
            rows.append([word(label), count(group), *sizes, *ious])
    rows += [[*map(word, ("paper", "–", "–", "about 5", "–", "0.24", "0.02"))]] if rows else []
    note = (
        "Base: weights that all captions of a concept select; mask: without the general ones, what is trained; both in "
        "per cent of K/V, mean over concepts. Shared: weights of a mask that earlier concepts have too, where L_reg "
        "acts (from the second concept on). IoU: mean of pairs, and of all masks; random masks of the same sizes show "
        "what is chance."
    )
    head = ["", "runs", "base, %", "mask, %", "shared, % of mask", "IoU of pairs", "IoU of all"]
    return Table("masks", "masks", "The concepts' weights (9.2, 9.3)", note, head, rows)
