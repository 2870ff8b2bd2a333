"""Finished runs to one page: README.md, tables.json and the figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper.entries import Figure, Table
from benchmarks.paper.extras import masks, orders, thresholds, zero_shot
from benchmarks.paper.lines import INTERVALS, Run
from benchmarks.paper.pictures import first_concepts
from benchmarks.paper.plots import draw
from benchmarks.paper.reasons import attributes, missed, moved
from benchmarks.paper.tables import ablations, acceptance, concepts, differences, forgetting, methods
from cns_jax.core.files import replacing
from cns_jax.core.markdown import table_lines
from cns_jax.engine.settings import MINIATURE

SECTIONS = {
    "acceptance": "The short answer",
    "methods": "Methods",
    "ablation": "Ablations",
    "differences": "Paired differences",
    "stages": "Lesson after lesson",
    "forgetting": "Forgetting",
    "zero_shot": "Without concepts",
    "orders": "Order of lessons",
    "threshold": "Threshold",
    "masks": "Masks",
    "concepts": "Concepts",
}


RENDERS = "renders.json"
"""Beside the page: what the judge sees in real renders of the concepts."""


FAIR = (
    "Every variant has the rates, steps and lambdas that [a sweep](sweep.md) chose for CNS, on concepts 4 to 7 of sets "
    "1 and 2; set 3 had no part in it (but for two trials with the miniature's forerunner). What a lower rate does for "
    "full K/V is the sweep's last rows."
)


def write_all(lines: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write README.md, tables.json and the figures (PNG and SVG) of the lines into `folder`; returns all of them.

    What the lines do not have is left out or called "not yet".
    """
    runs = [Run.of(line) for line in lines]
    folder.mkdir(parents=True, exist_ok=True)
    renders = folder / RENDERS
    tables = tables_of(runs, json.loads(renders.read_text()) if renders.exists() else {})
    pictures = first_concepts(folder / "figures", sorted({run.key[0] for run in runs}))
    figures = [*draw(runs, folder / "figures"), *pictures]
    return write_page(
        folder, len(lines), tables, figures, markdown(tables, figures, folder, head(lines), origin(lines))
    )


def write_page(folder: Path, runs: int, tables: Sequence[Table], figures: Sequence[Figure], text: str) -> list[Path]:
    """Write `text` to README.md and all numbers to tables.json; returns these files and those of the figures."""
    page, data = folder / "README.md", folder / "tables.json"
    found = {
        "runs": runs,
        "tables": {table.name: table.as_dict() for table in tables},
        "figures": {figure.file.stem: figure.data for figure in figures},
    }
    _write(data, json.dumps(found, indent=1, allow_nan=False) + "\n")
    _write(page, text)
    drawn = [file for figure in figures for file in (figure.file, figure.file.with_suffix(".svg"))]
    return [page, data, *filter(Path.exists, drawn)]  # a sheet of pictures has no SVG


def tables_of(runs: Sequence[Run], renders: Mapping[str, Any]) -> list[Table]:
    """All tables, in the order of the page. renders: what the judge sees in real renders, by concept."""
    return [
        acceptance(runs),
        methods(runs),
        *ablations(runs),
        differences(runs),
        forgetting(runs),
        attributes(runs),
        *zero_shot(runs),
        *orders(runs),
        thresholds(runs),
        masks(runs),
        moved(runs),
        concepts(runs),
        missed(runs, renders),
    ]


def head(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The page's title, and what its numbers are of."""
    models = ", ".join(sorted({line.get("model") or MINIATURE for line in lines}))
    if models != MINIATURE:
        return [
            f"# Concept Neuron Selection on {models}",
            "",
            "Tables and figures as in Liao et al., ICCV 2025.",
        ]
    told = (
        "The paper's experiments (Liao et al., ICCV 2025) on the miniature: a small Stable Diffusion of 64 x 64 "
        "pictures, in sets of seven concepts. Its numbers compare methods with each other; they are not SD-1.5's. "
        "Subjects are taught in three scenes and asked for in others. A classifier that no prompt went through tells "
        "`found`, whether every concept of the prompt appeared (kind, colour, pattern and the pattern's colour at "
        "once, or the style, or the scene), and `attributes`, the share of these and of the quirk (ear, collar, star, "
        "hat, crest) that did. CLIP-T is of the miniature's CLIP, whose text tower the miniature's text encoder "
        "started from (the paper scores with another CLIP than its model's)."
    )
    return ["# Concept Neuron Selection on the miniature", "", told]


def markdown(
    tables: Sequence[Table], figures: Sequence[Figure], folder: Path, title: Sequence[str], footer: str
) -> str:
    """The page."""
    out = [*title, ""]
    if (folder / "sweep.md").exists():
        out += [FAIR, ""]
    out += [INTERVALS, ""]
    if (folder / "neurons" / "tables.md").exists():
        told = (
            "always selected (Fig. 3), prompts edited word by word (Fig. 7, 9.1), shares and overlaps (9.2, 9.3), "
            "thresholds, calibration prompts, layers"
        )
        out += [f"[The neurons](neurons/tables.md): {told}.", ""]
    return "\n".join([*out, *sections(SECTIONS, tables, figures, folder), "---", "", footer, ""])


def sections(titles: Mapping[str, str], tables: Sequence[Table], figures: Sequence[Figure], folder: Path) -> list[str]:
    """Lines of the sections that have anything: their tables, then their figures. folder: of the page."""
    out = []
    for section, title in titles.items():
        own = [table for table in tables if table.section == section]
        drawn = [figure for figure in figures if figure.section == section]
        if own or drawn:
            out += [f"## {title}", ""]
            out += [row for table in own for row in table.markdown()]
            out += _rows(drawn, folder)
    return out


def _rows(figures: Sequence[Figure], folder: Path) -> list[str]:
    """Figures of one row side by side, two at most, so that they can be read; each under its sentence."""
    out = []
    rows = [[f for f in figures if f.row == row] for row in dict.fromkeys(figure.row for figure in figures)]
    for own in (row[i : i + 2] for row in rows for i in range(0, len(row), 2)):
        links = [f"![{f.file.stem}]({f.file.relative_to(folder).as_posix()})" for f in own]
        out += [*table_lines([f.reading for f in own], [links]), ""]
    return out


def origin(lines: Sequence[Mapping[str, Any]], command: str = "benchmarks.paper") -> str:
    """What the page was made from, and by which module."""

    def of(values: Sequence[Any]) -> str:
        return ", ".join(sorted({str(value) for value in values if value is not None}))

    dates = sorted({line["date"] for line in lines if line.get("date")})
    versions = [f"{k} {v}" for line in lines for k, v in (line.get("versions") or {}).items()]
    pictures = [cell[4] for line in lines for cell in line["cells"][:1]]
    steps = [(line.get("train") or {}).get("steps") for line in lines]
    groups = Counter(line["group"] for line in lines)
    timings = [(line.get("timings") or {}) | {"compile": 0.0} for line in lines]  # which the other parts contain
    seconds = [s for parts in timings for s in parts.values() if isinstance(s, int | float)]
    sampling = [
        f"{x['sampler']}, {x['steps']} steps, guidance {x['guidance_scale']}"
        for line in lines
        if (x := line.get("sample"))
    ]
    parts = {
        "groups": ", ".join(f"{name} {size}" for name, size in groups.items()),
        "sets": of([line["number"] for line in lines]),
        "seeds": of([line["seed"] for line in lines]),
        "steps a lesson": of(steps),
        "pictures a prompt": of(pictures),
        "sampling": of(sampling),
        "hours of training": f"{sum(seconds) / 3600:.1f}" if any(seconds) else "",
        "versions": of(versions),
        "device": of([line.get("device") for line in lines]),
        "date": " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "",
    }
    told = "; ".join(f"{name}: {value}" for name, value in parts.items() if value)
    return f"Generated by `python -m {command}` from {len(lines)} runs" + (f"; {told}." if told else ".")


def _write(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text)
