"""What is behind the scores: which attributes are learned and lost, what the judge sees in real renders, and through
which neurons a lesson moves the first concept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.paper.entries import Entry, Table, count, number, word
from benchmarks.paper.lines import Run, known, mean, of_line, of_rows, of_runs, variants
from benchmarks.paper.tables import by_concept
from cns_jax.core.files import replacing
from cns_jax.engine.measure.judging import WorldJudge, load_judge
from cns_jax.miniature.concepts import concepts, render_concept


def attributes(runs: Sequence[Run]) -> Table:
    """Which attributes of a concept are learned and which are lost, by the judge."""
    named = variants(runs)
    names = [name for name in NAMES if any(math.isfinite(_shown(own, name, "new")) for own in named.values())]
    rows = [
        [word(label), count(own)]
        + [number(100 * _shown(own, name, when), 0) for name in names for when in ("new", "end")]
        for label, own in named.items()
    ]
    note = (
        "Pictures of a concept that show its attributes, in per cent, right after its lesson and after all: scene and "
        "style of the concepts that are one, the rest of subjects. `found` asks for kind, colour, pattern and the "
        "pattern's colour at once, `attributes` is the mean of all. Quirk: ear, collar, star, hat or crest. Eyes are "
        "left out: the judge sees odd ones in 4 to 71 % of real renders."
    )
    head = ["", "runs", *(text for name in names for text in (f"{NAMES[name]}: new", "end"))]
    return Table("forgetting", "attributes", "Attribute by attribute", note, head, rows)


NAMES = {
    "subject": "kind",
    "color": "colour",
    "pattern": "pattern",
    "second": "pattern's colour",
    "quirk": "quirk",
    "scene": "scene",
    "style": "style",
}


def _shown(runs: Sequence[Run], attribute: str, when: str) -> float:
    return of_line(runs, "summary", "attributes", attribute, when)


def moved(runs: Sequence[Run]) -> Table:
    """Why the first concept is forgotten, or not: through which neurons a later lesson moves its keys and values."""
    rows = []
    for label, own in variants(runs).items():
        parts = (of_runs(own, of_rows("drift", part)) for part in ("all", "own", "earlier", "new"))
        alike = (number(of_line(own, "likeness", name), 2) for name in ("taught", "plain"))
        rows.append([word(label), count(own), *(number(100 * mean(part)) for part in parts), *alike])
    note = (
        "What a later lesson changes in the cross-attention keys and values of the first concept's prompts, in per "
        "cent of the base model's energy there, mean over lessons: by the weights that the first concept selected, by "
        "those that only other earlier concepts did, and by those that none did; the three need not add up to all, "
        "since changes may cancel or add to each other. L_reg, where there is one, acts on the first two, not on the "
        "last. Likeness: mean cosine between the text features of different concepts' prompts, with their tokens and "
        "without; what a weight learns for one prompt reaches another by as much."
    )
    head = ["", "runs", "in all, %", "the first concept's weights", "other earlier concepts'", "new ones", "likeness"]
    head += ["without tokens"]
    return Table("masks", "moved", "What moves the first concept", note, head, rows)


_EACH = 64  # renders of a concept that the judge is tried on


def judge_renders(file: Path) -> None:
    """Write what the judge sees in real renders of every drawn concept: name -> "found" and attributes, as shares."""
    shown = {}
    for place in (1, 2, 3):
        for concept in concepts(place):
            images = np.stack([render_concept(concept, index, "test")[0] for index in range(_EACH)])
            judge = WorldJudge(load_judge(), {concept.name: concept})
            found, grades = judge.look(images, [[concept.name]] * _EACH)
            told = {name: float(np.mean(values)) for name, values in grades.items() if np.isfinite(values).all()}
            shown[concept.name] = {"found": float(np.mean(found)), **told}
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(shown, indent=1) + "\n")


def missed(runs: Sequence[Run], renders: Mapping[str, Mapping[str, float]]) -> Table:
    """Why a concept is not found: its attributes one by one, beside what the judge finds in real renders."""
    rows = []
    for place, name, some in by_concept(runs):
        new = [of_line(some, "shown", name, attribute, "new") for attribute in NAMES]
        cells = [number(100 * x, 0) if math.isfinite(x) else Entry("") for x in new]
        ceiling = known(renders, name, "found")
        rows.append([word(str(place)), word(name.replace("_", " ")), count(some), *cells])
        rows[-1].append(number(ceiling and 100 * ceiling, 0))
    note = (
        "CNS: pictures of a concept right after its lesson that show each attribute, in per cent; a concept is found "
        "where all but the quirk show. Last column: what the judge finds in real renders of the concept, its ceiling."
    )
    head = ["set", "concept", "seeds", *NAMES.values(), "found in renders"]
    return Table("concepts", "missed", "What of a new concept is missing", note, head, rows)
