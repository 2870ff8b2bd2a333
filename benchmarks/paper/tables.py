"""The paper's tables from finished runs, its numbers beside ours, and what they say of CNS."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.paper.entries import (
    NO,
    NOT_YET,
    UNDECIDED,
    YES,
    Entry,
    Table,
    count,
    decided,
    number,
    spread,
    verdict,
    word,
)
from benchmarks.paper.lines import (
    ATTRIBUTES,
    CLIP_I,
    CLIP_T,
    COSINE,
    FOUND,
    MEASURES,
    VARIANTS,
    Measure,
    Run,
    Sample,
    at_end,
    concept_at,
    control_kept,
    estimate,
    gather,
    mean,
    of_concepts,
    of_line,
    of_runs,
    paired,
    pick,
    share,
    variants,
    when_new,
)
from cns_jax.evals.bootstrap import Estimate
from cns_jax.evals.scores import SINGLE, TABLE_SCALES, TOGETHER

KINDS = {SINGLE: "one concept", TOGETHER: "two or three concepts"}

TABLE_1: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "textual_inversion": ("Textual Inversion", ("72.76 / 72.69", "65.30 / 65.00", "0 / 0", "0")),
    "custom_diffusion": ("Custom Diffusion", ("67.88 / 74.92", "65.87 / 68.70", "3547 / 0", "10")),
    "mix_of_show": ("Mix-of-Show", ("75.86 / 75.75", "65.26 / 70.62", "62852 / 0", "727")),
    "orthogonal_adaptation": ("Orthogonal Adaptation", ("74.67 / 74.87", "66.37 / 69.20", "5663 / 3167", "42")),
    "continual_diffusion": ("Continual Diffusion", ("71.82 / 66.12", "66.15 / 60.30", "2461 / 4747", "10")),
    "cns": ("CNS", ("74.88 / 76.95", "67.21 / 79.22", "0 / 0", "0")),
    "ewc_dc": ("EWC-DC", ()),
    "dsc": ("DSC", ()),
    "cidm": ("CIDM", ()),
    "clasp": ("CLASP", ()),
    "shira": ("SHiRA", ()),
    "scns": ("SCNS", ()),
}
"""Variant -> name and the paper's numbers: CLIP-I / CLIP-T single and together; fusion's MB of GPU / CPU, seconds."""

TABLE_2: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "random": {SINGLE: ("73.15", "73.30"), TOGETHER: ("65.05", "72.92")},
    "no_lreg": {SINGLE: ("73.06", "74.65"), TOGETHER: ("66.89", "77.02")},
    "cns": {SINGLE: ("74.88", "76.95"), TOGETHER: ("67.21", "79.22")},
}


def methods(runs: Sequence[Run]) -> Table:
    """Table 1: every method that there is or will be."""
    rows = []
    for variant, (label, paper) in TABLE_1.items():
        own = pick(runs, "main", variant)
        ours = []
        for kind in KINDS:
            clip_i, clip_t = (mean(gather(own, m, at_end(kind))) for m in (CLIP_I, CLIP_T))
            measured = math.isfinite(clip_i + clip_t)
            ours.append(Entry(f"{clip_i:.2f} / {clip_t:.2f}", [clip_i, clip_t]) if measured else Entry(NOT_YET))
        ours += [number(of_line(own, "fusion", "megabytes"), 1), number(of_line(own, "fusion", "seconds"), 3)]
        theirs = map(word, paper or ("–",) * 4)
        rows.append([word(label), *(cell for pair in zip(ours, theirs, strict=True) for cell in pair)])
    note = (
        "CLIP-I / CLIP-T after all lessons, and what it takes to get one model of all concepts from what a method "
        "keeps. Ours are of the miniature with its own CLIP: compare methods within a column, not ours with the "
        "paper's (whose MB are of GPU / CPU, and whose scores are of the best of 50 pictures). –: not in the paper."
    )
    head = ["", *(x for name in KINDS.values() for x in (name, "paper")), "fusion, MB", "paper", "fusion, s", "paper"]
    return Table("methods", "methods", "Table 1: methods", note, head, rows)


def ablations(runs: Sequence[Run]) -> list[Table]:
    """Table 2, for prompts of one and of several concepts."""
    pictures = " or ".join(sorted({str(cell[4]) for run in runs for cell in run.line["cells"]}))
    note = (
        "After all lessons. Found: per cent of pictures in which the judge sees every concept asked for; attributes: "
        "per cent of attributes (kind, colour, ...) that it sees on all of them. CLIP-I: 100 x cosine with the "
        "concepts' pictures; CLIP-T: 100 x 2.5 x cosine with the prompt (the plain cosines are in tables.json). Means "
        f"over all pictures; best: of each prompt's {pictures} only the picture with the highest sum of both (the "
        "paper: of 50, and by another CLIP)."
    )
    clip = ("CLIP-I", "CLIP-T")
    head = ["", "runs", "found, %", "attributes, %", *clip, *(f"{of}{x}" for of in ("best: ", "paper: ") for x in clip)]
    out = []
    for kind, name in KINDS.items():
        rows = []
        for variant, label in VARIANTS.items():
            own = pick(runs, "main", variant)
            found, seen, clip_i, clip_t, cosine = (
                spread(estimate(gather(own, m, at_end(kind)))) for m in (*MEASURES, COSINE)
            )
            clip_t = Entry(clip_t.text, {"scaled": clip_t.value, "cosine": cosine.value})
            paper = TABLE_2.get(variant, {}).get(kind, ("–", "–"))
            best = (number(TABLE_SCALES[f] * of_line(own, "summary", "best", kind, f)) for f in ("clip_i", "clip_t"))
            rows.append([word(label), count(own), found, seen, clip_i, clip_t, *best, *map(word, paper)])
        out.append(Table("ablation", f"ablation_{kind}", f"Table 2: prompts of {name}", note, head, rows))
    return out


def gain(runs: Sequence[Run], variant: str, kind: str, measure: Measure) -> Estimate | None:
    """CNS minus a variant, paired, after all lessons."""
    ours, theirs = (gather(pick(runs, "main", name), measure, at_end(kind)) for name in ("cns", variant))
    return paired(ours, theirs)


def transfer_gain(runs: Sequence[Run], variant: str, measure: Measure) -> Estimate | None:
    """The backward transfer of CNS minus a variant's, paired."""
    ours, theirs = (of_concepts(pick(runs, "main", name), measure, "backward_transfer") for name in ("cns", variant))
    return paired(ours, theirs)


def differences(runs: Sequence[Run]) -> Table:
    """Whether CNS beats each variant."""
    rows = []
    for variant, label in list(VARIANTS.items())[1:]:
        for kind, name in KINDS.items():
            rows.append([word(label), word(name), *(decided(gain(runs, variant, kind, m)) for m in MEASURES)])
        lost = (decided(transfer_gain(runs, variant, m)) for m in MEASURES)
        rows.append([word(label), word("kept since its lesson"), *lost])
    note = (
        "CNS minus the variant on the same sets, seeds, prompts and noise, in points; above 0, CNS is better. Yes or "
        "no where the interval leaves out 0. Kept since its lesson: difference of the backward transfers; "
        "what was never learned cannot be lost, so read it beside the two rows above."
    )
    head = ["CNS against", "", *(m.label for m in MEASURES)]
    return Table("differences", "differences", "Does CNS beat each variant?", note, head, rows)


def told(measure: Measure, name: str) -> Callable[[Run], float | None]:
    """A field of `Forgetting` of a run, mean over its concepts."""

    def value(run: Run) -> float | None:
        values = run.forgetting(measure).get(name)
        return float(np.mean(values)) if values else None

    return value


def first_concept(runs: Sequence[Run], measure: Measure) -> tuple[list[Sample], list[Sample]]:
    """The first concept's prompts right after its lesson, and after all lessons."""
    end = gather(runs, measure, lambda run, cell: concept_at(run.last, 0)(run, cell))
    return gather(runs, measure, concept_at(1, 0)), end


def ends(runs: Sequence[Run], measure: Measure) -> tuple[float, float]:
    """The means of `first_concept`; NaN if there are none."""
    new, end = first_concept(runs, measure)
    return mean(new), mean(end)


def forgetting(runs: Sequence[Run]) -> Table:
    """What each variant learns and keeps."""
    rows = []
    for measure in MEASURES:
        for label, own in variants(runs).items():
            fields = ("learning", "average", "forgetting", "backward_transfer")
            values = [spread(estimate(of_concepts(own, measure, name))) for name in fields]
            new, end = first_concept(own, measure)
            first = [
                number(mean(new)),
                number(share(mean(end), mean(new)), 0, " %"),
                spread(paired(end, new), signed=True),
            ]
            rows.append([word(measure.label), word(label), count(own), *values, *first])
    note = (
        "Learned: mean over concepts, each right after its lesson; final: after all lessons. Forgetting: points that a "
        "concept lost since its best; backward transfer: since its own lesson (negative: lost). First concept: right "
        "after its lesson, what share of that is left at the end, and the difference. The best of several noisy scores "
        "is above their mean, so forgetting is above 0 even where nothing is lost; backward transfer is not."
    )
    head = ["", "", "runs", "learned", "final", "forgetting", "backward transfer", "first: new", "kept", "change"]
    return Table("forgetting", "forgetting", "What is learned and what is forgotten", note, head, rows)


def concepts(runs: Sequence[Run]) -> Table:
    """Each concept right after its lesson and at the end, by CNS."""
    rows = []
    for place, name, some in by_concept(runs):
        cells = [
            number(mean(concept_scores(some, name, measure, end)))
            for measure in (FOUND, CLIP_I)
            for end in (False, True)
        ]
        rows.append([word(str(place)), word(name.replace("_", " ")), count(some), *cells])
    note = "CNS; means over seeds, prompts and pictures. Concepts in the order of their lessons."
    head = ["set", "concept", "seeds", "found, %: new", "at end", "CLIP-I: new", "at end"]
    return Table("concepts", "concepts", "Concept by concept", note, head, rows)


def by_concept(runs: Sequence[Run]) -> list[tuple[int, str, list[Run]]]:
    """Set, concept, and the runs of CNS that taught it."""
    own = pick(runs, "main")
    every = dict.fromkeys((run.line["number"], name) for run in own for name in run.line["concepts"])
    places = sorted(every, key=lambda pair: pair[0])  # concepts stay in the order of their lessons
    return [(place, name, [run for run in own if run.line["number"] == place]) for place, name in places]


def concept_scores(runs: Sequence[Run], name: str, measure: Measure, end: bool) -> list[Sample]:
    """The samples of one concept, at the end or right after its lesson."""
    where = at_end(SINGLE) if end else when_new
    return gather(runs, measure, lambda run, cell: where(run, cell) and run.names(cell) == (name,))


def acceptance(runs: Sequence[Run]) -> Table:
    """What CNS must do to count as working."""
    own = pick(runs, "main")
    new = [
        x for _, name, some in by_concept(runs) if math.isfinite(x := mean(concept_scores(some, name, FOUND, False)))
    ]
    kept = share(*reversed(ends(own, FOUND)))
    first = f"found: {_first_kept(own, FOUND)}; attributes: {_first_kept(own, ATTRIBUTES)}"
    control = estimate(of_runs(own, control_kept))
    learned = spread(estimate(gather(own, FOUND, when_new))).text
    good = sum(x >= 80 for x in new)
    rows = [
        [
            word("every concept is found right after its lesson"),
            word(">= 80 % of pictures, each"),
            Entry(f"{good} of {len(new)} concepts; lowest {min(new):.0f} %, mean {learned} %", [good, len(new)])
            if new
            else Entry(NOT_YET),
            _holds(min(new, default=math.nan), 80),
        ],
        [
            word("the first concept is kept"),
            word("found: >= 90 % of its score when new"),
            Entry(first, kept) if math.isfinite(kept) else Entry(NOT_YET),
            _holds(kept, 90),
        ],
        [
            word("pictures without a concept still show what was asked"),
            word(">= 95 % of the base model"),
            Entry(f"{control.text()} %", control.mean) if control else Entry(NOT_YET),
            _holds(control.mean if control else math.nan, 95),
        ],
    ]
    for variant, label in list(VARIANTS.items())[1:]:
        gains = {name: gain(runs, variant, kind, FOUND) for kind, name in KINDS.items()}
        text = "; ".join(f"{name}: {decided(one).text}" for name, one in gains.items() if one)
        verdicts = {verdict(one) for one in gains.values() if one}
        holds = next((v for v in (NO, UNDECIDED, YES) if v in verdicts), NOT_YET)
        rows.append([word(f"beats {label}"), word("found, at the end: interval above 0"), Entry(text or NOT_YET, text)])
        rows[-1].append(word(holds))
    note = "CNS; means over sets and seeds. Differences are those of the paired table below, in points of `found`."
    return Table("acceptance", "acceptance", "Does CNS work here?", note, ["", "wanted", "measured", "holds"], rows)


def _first_kept(runs: Sequence[Run], measure: Measure) -> str:
    """Of the first concepts' score when new, what is left after all lessons: in all, and set by set."""
    new, end = first_concept(runs, measure)
    by_set = [
        share(mean([s for s in end if s.number == n]), mean([s for s in new if s.number == n]))
        for n in sorted({s.number for s in new})
    ]
    told = f"{share(mean(end), mean(new)):.0f} % ({mean(new):.1f}, {spread(paired(end, new), signed=True).text} points)"
    return told + (f"; sets: {', '.join(f'{x:.0f} %' for x in by_set)}" if len(by_set) > 1 else "")


def _holds(value: float, least: float) -> Entry:
    return word((YES if value >= least else NO) if math.isfinite(value) else NOT_YET)
