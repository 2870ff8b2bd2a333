"""Protection's page from made-up lines: what is paired, what is kept, and from which drift on a concept is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper.entries import NOT_YET
from benchmarks.paper.lines import Run
from benchmarks.protection.certificates import (
    Point,
    by_drift,
    certified,
    first_concepts,
    limit_of,
    running_median,
    told,
)
from benchmarks.protection.page import write_all
from benchmarks.protection.tables import Pair, compared, concepts, long, orders
from benchmarks.speed.protection_cost import in_turns, ratio, table

NAMES = ["cat", "dog", "sea"]


def a_line(variant: str, group: str = "main", new: float = 1.0, end: float = 0.5, moved: float = 0.01,
           names: list[str] = NAMES, **changed: Any) -> dict[str, Any]:  # fmt: skip
    """Each of `names` is found in `new` of its pictures after its lesson, in `end` later."""
    last = len(names)
    cells = [
        [stage, "single", f"a {name}", [j], 2, 0.6, 0.7, new if stage == j + 1 else end, None, 0.2, 0.9]
        for stage in range(1, last + 1)
        for j, name in enumerate(names[:stage])
    ]
    cells.append([last, "together", "a cat and a dog", [0, 1], 2, 0.6, 0.7, end, None, 0.2, 0.9])
    control = {"before": {"color": 1.0}, "after": {"color": 0.9}}
    line = {"group": group, "variant": variant, "number": 1, "seed": 0, "order": 0, "count": last, "concepts": names}
    line |= {"train": {"steps": 800}, "timings": {"train": 30.0, "priors": 60.0, "compile": 1000.0}, "cells": cells}
    line |= {"zero_shot": {"unchanged": 0.95, "control": control}, "drift": [{"all": 0.1}] * (last - 1)}
    rows = [[{"name": n, "mean": moved * k, "worst": 1.0, "layer": ""} for n in names[:k]] for k in range(last)]
    return line | ({"certificate": rows} if variant == "protected" else {}) | changed


def rows_of(table: Any) -> dict[str, list[Any]]:
    return {row[0].text: [cell.value for cell in row[1:]] for row in table.rows}


def test_only_what_both_have_is_compared() -> None:
    """A line of another seed, or of another order, would make the means those of other concepts."""
    own = [Run.of(a_line("protected", new=0.8, end=0.8)), Run.of(a_line("protected", seed=1, new=0.0))]
    old = [Run.of(a_line("cns")), Run.of(a_line("cns", number=2, new=0.0)), Run.of(a_line("cns", order=2, end=0.0))]
    rows = rows_of(compared(Pair.of(own, old, "main")))
    cns, protected, gap = (cell["mean"] for cell in rows["found at the end, %"])
    assert (cns, protected, gap) == pytest.approx((200 / 3, 80.0, 40 / 3))  # the last concept has just been taught
    assert [c["mean"] for c in rows["since its lesson, points of found"]] == [-50, 0, 50]
    assert rows["first concept keeps, % of its found"] == [50, 100, 50]
    assert rows["concepts found in at least 80 % right after their lesson"] == [[3, 3], [3, 3], 0]
    assert rows["seconds a lesson, prior images and selection among them"] == [30, 30, 0]
    assert rows["control kept, % of the base model's"][1]["mean"] == pytest.approx(90)


def test_a_first_lesson_is_compared_in_its_own_order() -> None:
    own = [Run.of(a_line("protected", "order", end=0.9, order=2)), Run.of(a_line("protected", "order", order=5))]
    old = [Run.of(a_line("cns", "order", end=0.1, order=o)) for o in (2, 5)]
    first, second = (row[2:4] for row in orders(Pair.of(own, old, "order")).rows)
    assert [cell.text for cell in first] == ["100 → 10 (10 %)", "100 → 90 (90 %)"]
    assert [cell.text for cell in second] == ["100 → 10 (10 %)", "100 → 50 (50 %)"]


def test_concept_by_concept() -> None:
    pair = Pair.of([Run.of(a_line("protected", end=0.8))], [Run.of(a_line("cns", end=0.2))], "main")
    row = next(row for row in concepts(pair).rows if row[1].text == "cat")
    assert [cell.value for cell in row[3:7]] == [100, 20, 100, 80] and row[-1].value == pytest.approx(2)


def test_a_long_run_tells_of_its_ends() -> None:
    names = [f"c{i}" for i in range(12)]
    lines = [a_line("protected", "long", end=0.7, number=12, names=names[:n], count=n) for n in (10, 12)]
    lines[1]["cells"] = [
        [*c[:7], 0.5 if c[0] == c[3][0] + 1 and c[3][0] > 9 else c[7], *c[8:]] for c in lines[1]["cells"]
    ]
    rows = rows_of(long([Run.of(line) for line in lines[::-1]]))
    assert rows["found, first ten: right after their lessons"] == [100]
    assert rows["found, first ten: after so many lessons"] == [pytest.approx([73, 70])]
    assert rows["first ten keep, % of their found"] == [pytest.approx(70)]
    assert rows["last ten learned, % of the first ten's found"] == [pytest.approx(90)]
    assert long([Run.of(lines[0])]).head[1] == "12 concepts, 10 so far"


def test_points_are_of_later_lessons_and_of_learned_concepts() -> None:
    points = certified([Run.of(a_line("protected", end=0.5))])
    assert points == [Point(0.01, 0.5), Point(0.02, 0.5), Point(0.02, 0.5)]
    assert certified([Run.of(a_line("protected", new=0.4))]) == []
    assert certified([Run.of(a_line("cns"))]) == []
    assert [p.drift for p in first_concepts([Run.of(a_line("cns"))])] == pytest.approx([0.1, 0.2])


def test_the_limit_lies_between_kept_and_lost() -> None:
    kept, lost = ([Point(10.0**-e, x) for e in some] for some, x in (((7, 6, 5, 4, 3), 1.0), ((2, 1, 0, -1, -2), 0.3)))
    found = limit_of([*lost, *kept])
    assert found is not None and found.drift == pytest.approx(10**-2.5) and (found.below, found.above) == (0, 1)
    assert "0.32 %" in told([*lost, *kept]) and "in 0 % of cases, the others in 100 %" in told([*lost, *kept])
    assert [row[1].value for row in by_drift([*lost, *kept]).rows] == [3, 1, 1, 1, 1, 3]


def test_a_few_cases_tell_no_limit() -> None:
    kept = [Point(0.01 * i, 1.0) for i in range(1, 9)]
    assert limit_of([]) is limit_of(kept) is limit_of([*kept, *[Point(1.0, 0.1)] * 4]) is None
    assert "4 of 12 cases" in told([*kept, *[Point(1.0, 0.1)] * 4])
    one_picture_less = [Point(1.0, 0.75)] * 5
    assert limit_of([*kept, *one_picture_less]) is None and limit_of([*kept, *[Point(1.0, 0.7)] * 5]) is not None


def test_the_running_median_is_of_neighbours() -> None:
    points = [Point(float(i), float(i < 20)) for i in range(40)]
    line = running_median(points[::-1])
    assert [p.kept for p in line if p.drift < 20] == [1.0] * 16 and {p.kept for p in line if p.drift > 20} == {0.0}


def test_the_page(tmp_path: Path) -> None:
    long_names = [f"c{i}" for i in range(12)]
    lines = [a_line("protected", seed=s, end=0.2 + 0.3 * s, moved=0.1**s) for s in (0, 1, 2)]
    lines += [a_line("protected", "order", order=2), a_line("protected", "long", number=12, names=long_names, count=12)]
    cns = [a_line("cns", seed=s, end=0.5) for s in (0, 1, 2)] + [a_line("cns", "order", order=2)]
    files = write_all(lines, cns, {"sweep": [a_line("protected", moved=2.0)]}, tmp_path)
    assert {f.name for f in files} >= {"README.md", "tables.json", "certificate.png", "long_12.svg"}
    page, data = files[0].read_text(), json.loads(files[1].read_text())
    assert NOT_YET not in page.split("## Concepts")[0] and "nan" not in page and data["runs"] == len(lines)
    assert all(f"({f.relative_to(tmp_path)})" in page for f in files if f.suffix == ".png")
    assert len(data["figures"]["certificate"]["sweep"]) == 3


def test_calls_are_timed_by_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in ("off", "on")}
    found = in_turns(calls, 3)
    assert order == ["off", "on", "on", "off", "off", "on"] and [len(x) for x in found.values()] == [3, 3]


def test_the_ratio_is_of_the_same_round() -> None:
    """A busy machine makes a round slow, not a side."""
    seconds = {"off": [1.0, 10.0, 1.0], "128 directions": [1.1, 11.0, 1.1], "all directions": [2.0, 20.0, 2.0]}
    line = {"suite": "mini", "pictures": 2, "seconds": seconds, "moment": [1.0, 2.0, 9.0], "device": "cpu"}
    assert ratio(line, "128 directions") == pytest.approx(1.1)
    assert "| mini | 2 | 1000 ms | 1.100 x | 2.000 x | 2.00 s | cpu |" in table([line])
