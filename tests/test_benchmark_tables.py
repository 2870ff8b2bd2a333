"""The paper's tables and figures from lines as benchmarks/paper/experiments.py writes them, here invented."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper.entries import Table
from benchmarks.paper.extras import masks, orders, thresholds, zero_shot
from benchmarks.paper.lines import FOUND, Run, at_end, estimate, gather, of_concepts, variants
from benchmarks.paper.page import origin, tables_of, write_all
from benchmarks.paper.reasons import attributes, missed, moved
from benchmarks.paper.stage_plots import apart
from benchmarks.paper.tables import ablations, acceptance, concepts, differences, forgetting, methods
from cns_jax.evals.scores import PLAIN, SINGLE, TOGETHER

Score = Callable[[int, str, tuple[int, ...]], tuple[float, float, float | None]]
"""(stage, kind, concepts) -> CLIP-I, CLIP-T, found of a cell."""


def seen(score: Score, *key: Any) -> float | None:
    """Attributes: all where the concept is found, half where it is not."""
    found = score(*key)[2]
    return None if found is None else 0.5 + found / 2


def invented(score: Score, variant: str = "cns", number: int = 1, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A line of three concepts with two prompts each, and a prompt of two concepts."""
    size = more.pop("size", 3)
    wanted = [(0, PLAIN, (j,)) for j in range(size)]
    wanted += [(k, SINGLE, (j,)) for k in range(1, size + 1) for j in range(k)]
    wanted += [(size, PLAIN, (j,)) for j in range(size)]
    cells = [
        [*key[:2], f"prompt {i} of {key[2]}", list(key[2]), 2, *score(*key), None, 0.1 * key[0], seen(score, *key)]
        for key in wanted
        for i in range(2 if size == 3 else 5)
    ]
    pairs = [(j, (j + 1) % size) for j in range(1 if size == 3 else size)]
    cells += [
        [size, TOGETHER, f"both {pair}", list(pair), 2, *score(*key), None, None, seen(score, *key)]
        for pair in pairs
        for key in [(size, TOGETHER, pair)]
    ]
    return {
        **{"group": "main", "variant": variant, "number": number, "seed": seed, "order": 0},
        "concepts": [f"thing_{number}{j}" for j in range(size)],
        "method": {"ratio": 0.3},
        "train": {"steps": 200},
        "masks": [{"mask_share": 0.05, "base_share": 0.2, "regularized_of_mask": 0.5 * (j > 0)} for j in range(size)],
        "overlaps": {"pairwise_iou": 0.25, "joint_iou": 0.02},
        "fusion": {"seconds": 0.001, "megabytes": 0.0},
        "drift": [
            {"all": 0.25, "own": 0.1, "earlier": 0.0, "new": 0.2},
            {"all": 0.15, "own": 0.1, "earlier": 0.1, "new": 0.1},
        ],
        "likeness": {"taught": 0.6, "plain": 0.9},
        "summary": {
            "best": {SINGLE: {"clip_i": 0.9, "clip_t": 0.3}, TOGETHER: {}},
            "attributes": {"pattern": {"new": 0.9, "end": 0.45}, "scene": {"new": None, "end": None}},
        },
        "versions": {"jax": "0.10", "python": "3.11"},
        **{"device": "cpu", "date": "2026-11-21", "cells": cells},
        "zero_shot": {
            "unchanged": 0.97,
            "clip_t": {"before": 0.3, "after": 0.29},
            "control": {"before": {"scene": 0.8, "quirk": math.nan}, "after": {"scene": 0.6, "quirk": math.nan}},
        },
        **more,
    }


def keeps(stage: int, kind: str, concepts: tuple[int, ...]) -> tuple[float, float, float]:
    """Everything found, always."""
    return 0.8, 0.3, float(kind != PLAIN)


def forgets(stage: int, kind: str, concepts: tuple[int, ...]) -> tuple[float, float, float]:
    """Concept 0 is found half as often after every further lesson."""
    found = 0.5 ** (stage - 1) if concepts[0] == 0 and kind != PLAIN else float(kind != PLAIN)
    return 0.7, -0.1, found


def two_methods() -> list[Run]:
    return [
        Run.of(invented(score, variant, number, seed))
        for variant, score in (("cns", keeps), ("no_lreg", forgets))
        for number in (1, 2)
        for seed in (0, 1)
    ]


def texts(table: Table, row: str) -> list[str]:
    """A row by the text of its first cell that differs from others, without that cell."""
    (found,) = [[cell.text for cell in r] for r in table.rows if r[0].text == row]
    return found[1:]


def test_ablations() -> None:
    """Exact: of six prompts at the end, two (concept 0) are found to a quarter: 75 %; CLIP-T below 0 counts as 0."""
    single, together = ablations(two_methods())
    assert texts(single, "CNS")[:2] == ["4", "100.0 [100.0, 100.0]"]
    runs, found, attributes, clip_i, clip_t, *best, paper_i, paper_t = texts(single, "without L_reg")
    assert found.startswith("75.0 [") and attributes.startswith("87.5 [")
    assert clip_i == "70.0 [70.0, 70.0]" and clip_t == "0.0 [0.0, 0.0]"
    assert best == ["90.0", "75.0"] and (paper_i, paper_t) == ("73.06", "74.65")
    assert texts(together, "without L_reg")[1] == "25.0 [25.0, 25.0]"
    assert texts(single, "random neurons") == ["0", *["not yet"] * 6, "73.15", "73.30"]
    assert texts(single, "token only")[-2:] == ["–", "–"]
    (value,) = [row[5].value for row in single.rows if row[0].text == "without L_reg"]
    assert value["scaled"]["mean"] == 0 and value["cosine"]["mean"] == pytest.approx(-0.1)


def test_differences_are_paired_and_decided() -> None:
    table = differences(two_methods())
    single, together, less = [[c.text for c in row[1:]] for row in table.rows if row[0].text == "without L_reg"]
    assert together == [
        "two or three concepts",
        "+75.0 [75.0, 75.0] yes",
        "+37.5 [37.5, 37.5] yes",
        "+10.0 [10.0, 10.0] yes",
        "+75.0 [75.0, 75.0] yes",
    ]
    # concept 0 is one of three clusters of a set: some resamples do not draw it, so the interval reaches 0
    assert single[1].startswith("+25.0 [0.0, ") and single[1].endswith("undecided") and single[3].endswith("yes")
    # concept 0 lost 75 points, concept 1 none; the last concept does not count: 37.5; a resample may draw either alone
    assert less[1] == "+37.5 [0.0, 75.0] undecided"


def test_only_shared_prompts_are_compared() -> None:
    """A seed that one variant lacks changes its own mean, not the difference."""
    more = Run.of(invented(forgets, "cns", 1, 7))
    table, before = differences([*two_methods(), more]), differences(two_methods())
    assert [c.text for row in table.rows for c in row] == [c.text for row in before.rows for c in row]
    assert texts(ablations([*two_methods(), more])[0], "CNS")[1].startswith("95.0 ")


def test_forgetting() -> None:
    rows = [[c.text for c in row] for row in forgetting(two_methods()).rows if row[0].text == "found"]
    assert [row[1] for row in rows] == ["CNS", "without L_reg"]
    assert rows[1][2:] == [
        "4", "100.0 [100.0, 100.0]", "75.0 [50.0, 100.0]", "37.5 [0.0, 75.0]", "-37.5 [-75.0, 0.0]",
        "100.0", "25 %", "-75.0 [-75.0, -75.0]",
    ]  # fmt: skip


def test_acceptance() -> None:
    rows = [[c.text for c in row] for row in acceptance(two_methods()).rows]
    assert rows[0][2:] == ["6 of 6 concepts; lowest 100 %, mean 100.0 [100.0, 100.0] %", "yes"]
    kept = "100 % (100.0, +0.0 [0.0, 0.0] points); sets: 100 %, 100 %"
    assert rows[1][2:] == [f"found: {kept}; attributes: {kept}", "yes"]
    assert rows[2][2:] == ["75.0 [75.0, 75.0] %", "no"]
    assert [row[3] for row in rows[3:]] == ["undecided", "not yet", "not yet", "not yet"]
    forgetful = [Run.of(invented(forgets, number=n)) for n in (1, 2)]
    assert [row[3].text for row in acceptance(forgetful).rows[:2]] == ["yes", "no"]


def test_zero_shot_methods_masks_concepts() -> None:
    runs = two_methods()
    control, unchanged, leakage = zero_shot(runs)
    assert control.head[-1] == "scene"  # quirk was not measured
    assert texts(control, "CNS") == ["4", "75.0 [75.0, 75.0]", "75.0"]
    assert texts(unchanged, "CNS") == ["4", "0.970", "75.0", "72.5"]
    *plain, others, change = texts(leakage, "CNS")
    assert plain == ["4", "0.0", "+0.0 [0.0, 0.0]", "50.0", "+0.0 [0.0, 0.0]", "80.0", "+0.0 [0.0, 0.0]"]
    assert others == "20.0" and change.startswith("+10.0 [")  # by hand: 10, 20, 30 when new, 30 each at the end
    assert attributes(runs).head[2:] == ["pattern: new", "end"]  # scenes were not measured
    assert texts(attributes(runs), "CNS") == ["4", "90", "45"]
    assert texts(methods(runs), "CNS")[:6] == [
        "80.00 / 75.00",
        "74.88 / 76.95",
        "80.00 / 75.00",
        "67.21 / 79.22",
        "0.0",
        "0 / 0",
    ]
    assert texts(methods(runs), "CIDM") == ["not yet", "–"] * 4
    assert texts(moved(runs), "CNS")[1:] == ["20.0", "10.0", "5.0", "15.0", "0.60", "0.90"]
    assert texts(masks(runs), "CNS, set 1") == ["2", "20.0", "5.0", "50.0", "0.250", "0.020"]
    assert [[c.text for c in row] for row in concepts(runs).rows][0] == [
        "1",
        "thing 10",
        "2",
        "100.0",
        "100.0",
        "80.0",
        "80.0",
    ]


def test_one_number_has_one_interval() -> None:
    """Of the same pictures, Table 2 and the table of forgetting say the same."""
    runs = two_methods()
    for own in variants(runs).values():
        assert estimate(gather(own, FOUND, at_end(SINGLE))) == pytest.approx(
            estimate(of_concepts(own, FOUND, "average"))[:3] + (24,)
        )


def test_what_is_missing_of_a_concept() -> None:
    runs = [Run.of(invented(keeps, shown={"thing_10": {"pattern": {"new": 0.3}, "scene": {"new": None}}}))]
    table = missed(runs, {"thing_10": {"found": 0.9}})
    shown = dict(zip(table.head, (cell.text for cell in table.rows[0]), strict=True))
    assert (shown["pattern"], shown["scene"], shown["found in renders"]) == ("30", "", "90")
    assert table.rows[1][-1].text == "not yet"


def test_orders_and_thresholds_take_the_main_runs_beside_them() -> None:
    """The main runs of the same sets and seeds only; spread by hand: orders 100 and 75 apart at each of two seeds."""
    runs = two_methods()
    runs += [Run.of(invented(forgets, seed=seed, group="order", order=2)) for seed in (0, 1)]
    runs += [Run.of(invented(forgets, "ratio10", group="ratio", method={"ratio": 0.1}))]
    values, spread = orders(runs)
    assert [row[2].text for row in values.rows] == ["2", "2"]
    (row,) = [[c.text for c in r] for r in spread.rows if (r[0].text, r[1].text) == ("found", "final")]
    assert row[2:] == [f"{np.std([100, 75], ddof=1):.2f}", "0.00"]
    assert [[row[0].text, row[1].text] for row in thresholds(runs).rows] == [["10 %", "1"], ["30 %", "1"]]


def test_intervals_widen_with_concepts_not_with_seeds() -> None:
    """Copies of a run under other seeds tell nothing new."""

    def by_concept(stage: int, kind: str, concepts: tuple[int, ...]) -> tuple[float, float, float]:
        return 0.5, 0.3, concepts[0] / 2

    def width(seeds: int) -> float:
        runs = [Run.of(invented(by_concept, number=n, seed=s)) for n in (1, 2) for s in range(seeds)]
        found = estimate(gather(runs, FOUND, at_end(SINGLE)))
        assert found
        return found.high - found.low

    assert width(1) > 30 and width(3) == pytest.approx(width(1))


def test_page(tmp_path: Path) -> None:
    lines = [dict(run.line) for run in two_methods()]
    files = write_all(lines, tmp_path)
    assert all(file.exists() for file in files)
    page = (tmp_path / "README.md").read_text()
    for file in files:
        if file.suffix == ".png":
            assert f"]({file.relative_to(tmp_path)})" in page and file.with_suffix(".svg").exists()
    assert {"first_found", "new_clip_i", "known_clip_t", "matrix_found"} <= {file.stem for file in files}
    assert "from 8 runs" in page and "jax 0.10" in page and "2026-11-21" in page and "nan" not in page
    rows = json.loads((tmp_path / "tables.json").read_text())["tables"]["ablation_single"]["rows"]
    assert rows[0][2] == {"mean": 100.0, "low": 100.0, "high": 100.0, "n": 24}


def without_judge(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**line, "zero_shot": {}, "cells": [[*cell[:7], None, *cell[8:]] for cell in line["cells"]]}


POOR: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no judge": without_judge,
    "NaN": lambda line: {**line, "cells": [[*cell[:7], math.nan] for cell in line["cells"]]},
    "no zero-shot": lambda line: {k: v for k, v in line.items() if k != "zero_shot"},
    "no masks": lambda line: {
        k: v for k, v in line.items() if k not in ("masks", "overlaps", "fusion", "drift", "method")
    },
    "no cells": lambda line: {**line, "cells": []},
    "no stages between": lambda line: {**line, "cells": [cell for cell in line["cells"] if cell[0] in (0, 3)]},
    "about nothing": lambda line: {
        k: line[k] for k in ("group", "variant", "number", "seed", "order", "concepts", "cells")
    },
}


@pytest.mark.parametrize("poor", POOR)
def test_what_is_missing_is_not_yet(poor: str) -> None:
    lines = [POOR[poor](dict(run.line)) for run in two_methods()]
    tables = tables_of([Run.of(line) for line in lines], {})
    assert "nan" not in "\n".join(row for table in tables for row in table.markdown()) + origin(lines)
    if poor == "no judge":
        acceptance_ = [row[3].text for row in tables[0].rows]
        assert set(acceptance_) == {"not yet"}


@pytest.mark.parametrize(
    "lines",
    [[], [without_judge(invented(keeps))], [invented(keeps, "full_kv")]],
    ids=["nothing", "one run without a judge", "no run of CNS"],
)
def test_a_page_of_almost_nothing(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    assert "not yet" in (write_all(lines, tmp_path)[0]).read_text()


def test_variants_are_named_plainly() -> None:
    assert list(variants(two_methods())) == ["CNS", "without L_reg"]


def test_names_at_the_ends_of_curves_stand_apart() -> None:
    assert apart([3.0, 1.0, 9.0], 1.0) == [3.0, 1.0, 9.0]
    assert apart([5.0, 5.0], 2.0) == [4.0, 6.0]
    assert apart([], 1.0) == []
