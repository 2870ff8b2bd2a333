"""The page benchmarks/results/protection/README.md, made from lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.lines import INTERVALS, Run, pick
from benchmarks.paper.page import origin, sections, write_page
from benchmarks.protection import plots, tables
from benchmarks.protection.certificates import by_drift, certified, first_concepts
from benchmarks.protection.pictures import kept

Lines = Sequence[Mapping[str, Any]]

SECTIONS = {
    "compared": "Against CNS",
    "pictures": "Pictures",
    "orders": "A scene or a style first",
    "long": "Many concepts",
    "certificate": "The certificate",
    "concepts": "Concepts",
}

_HEAD = (
    "Concept Neuron Selection as in its paper (the lines of [the paper's page](../paper/README.md)) and the method "
    "`protected`, on the miniature: all K/V weights learn, without prior images, and a proximal step after each update "
    "draws the keys and values of earlier concepts' prompts and of general ones back "
    "([how](../../../docs/protection.md)). What `found` and the other measures are stands on the paper's page."
)


def write_all(lines: Lines, cns: Lines, others: Mapping[str, Lines], folder: Path) -> list[Path]:
    """Write README.md, tables.json and the figures into `folder`; returns all of them.

    lines: of this benchmark; cns: CNS's of benchmarks.paper; others: label -> more lines with certificates, which only
    the figure and the table of the certificate show.
    """
    runs, old = [Run.of(line) for line in lines], [Run.of(line) for line in cns]
    folder.mkdir(parents=True, exist_ok=True)
    main, turned = (tables.Pair.of(runs, old, group) for group in ("main", "order"))
    points = {
        "protected, sets of seven": certified(run for run in runs if run.line["group"] != "long"),
        "protected, long runs": certified(run for run in runs if run.line["group"] == "long"),
        **{label: certified(Run.of(line) for line in some) for label, some in others.items()},
    }
    every = [point for some in points.values() for point in some]
    shown = [tables.compared(main), tables.orders(turned), tables.long(runs), by_drift(every), tables.concepts(main)]
    label = "CNS, first concepts (lessons added up, of the base model's energy)"
    dots = points | {label: first_concepts(pick(old, "main"))}
    figures = folder / "figures"
    drawn = [*kept(figures), *plots.long(runs, figures), *plots.certificate(dots, every, figures)]
    text = ["# A model that keeps what it learned", "", _HEAD, "", INTERVALS, ""]
    text += sections(SECTIONS, shown, drawn, folder)
    text += ["---", "", origin(lines, "benchmarks.protection"), ""]
    return write_page(folder, len(lines), shown, drawn, "\n".join(text))
