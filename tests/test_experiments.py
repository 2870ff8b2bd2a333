"""The paper's experiments: every run's settings are valid and its own; a finished run's line is kept once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import CONCEPTS

from benchmarks.paper.experiments import GROUPS, VARIANTS, Experiment, finished, has_line, mixed, variant_of
from benchmarks.paper.trials import HEAD, TRIALS, row
from benchmarks.runs import keep, read_lines
from cns_jax.core.settings import SettingsError
from cns_jax.engine.measure.evaluation import EvaluationRequest, evaluate
from cns_jax.engine.measure.judging import judge_id
from cns_jax.miniature.concepts import concepts


@pytest.mark.parametrize("group", list(GROUPS))
def test_runs_differ(group: str, tmp_path: Path) -> None:
    experiments = list(GROUPS[group]([1, 2, 3], [0, 1]))
    settings = [e.settings(tmp_path) for e in experiments]
    assert len({s.directory for s in settings}) == len(settings) == len(set(settings))
    assert all(len(s.concepts) == 7 and s.prior.directory == str(tmp_path / "cache") for s in settings)


def test_variants(tmp_path: Path) -> None:
    of = {name: Experiment("main", name, 1, 0, method=m).settings(tmp_path).method for name, m in VARIANTS.items()}
    assert of["cns"].selection == of["no_lreg"].selection == "concept" and of["cns"].lambda1 > 0
    assert of["no_lreg"].lambda1 == of["no_lreg"].lambda2 == of["full_kv"].lambda1 == 0
    assert (of["random"].selection, of["full_kv"].selection, of["token"].lr_neurons) == ("random", "all", 0.0)
    assert of["random"].lambda1 == of["cns"].lambda1


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_settings_tell_a_variant(variant: str, tmp_path: Path) -> None:
    assert variant_of(Experiment("ratio", "any", 1, 0, method=VARIANTS[variant]).settings(tmp_path)) == variant


def test_any_finished_run_has_a_line(trained: dict[str, Any], tmp_path: Path) -> None:
    """As of any configuration: nothing but its settings says that it is CNS."""
    folders = [str(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        shutil.copytree(trained["folder"], folder)
    request = EvaluationRequest(folders[0], num=1, zero_shot=0, clip="miniature", seed=trained["values"].get("seed", 0))
    shutil.copytree(evaluate(request).parent, Path(folders[1]) / "evaluation")
    (line,) = finished(folders[:1], 1)
    assert (line["group"], line["variant"], line["clip"]) == ("main", "cns", "miniature")
    assert list(line["shown"]) == list(CONCEPTS) and line["shown"]["tiger_cat"]["pattern"]["end"] is not None
    with pytest.raises(SettingsError, match="are both cns of the same concepts at seed"):
        list(finished(folders, 1))


def test_an_order_rotates_the_concepts(tmp_path: Path) -> None:
    names = [c.name for c in concepts(2)]
    turned = Experiment("order", "cns", 2, 0, order=2).settings(tmp_path)
    assert [c.name for c in turned.concepts] == names[2:] + names[:2]
    few = Experiment("sweep", "cns", 2, 0, count=3).settings(tmp_path)
    assert [c.name for c in few.concepts] == names[:3]


@pytest.mark.parametrize("name", list(TRIALS))
def test_trials_are_settings(name: str, tmp_path: Path) -> None:
    Experiment("sweep", name, 1, 100, count=4, **TRIALS[name]).settings(tmp_path)


def test_recorded_trials_are_what_their_names_say_today(tmp_path: Path) -> None:
    """A change of configs/bench.py that a trial does not name would make the record lie."""
    lines = read_lines(Path(__file__).parents[1] / "benchmarks" / "results" / "paper" / "sweep.jsonl")
    assert lines
    for line in lines:
        about = (line[name] for name in ("group", "variant", "number", "seed", "order"))
        trial = Experiment(*about, count=line["count"], **TRIALS[line["variant"]])
        own = line | {"judge": judge_id()}
        assert has_line(trial, tmp_path, line["cells"][0][4], [own], line["base"]), line["variant"]


def test_a_run_has_one_line(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "runs.jsonl"
    assert read_lines(file) == []
    line = {"group": "main", "variant": "cns", "number": 1, "seed": 0, "order": 0, "count": 7, "value": 1}
    for new in (line, line | {"seed": 1}, line | {"value": 2}):
        keep(file, new)
    assert [(r["seed"], r["value"]) for r in read_lines(file)] == [(0, 2), (1, 1)]


def a_line(variant: str, group: str = "main", **changed: Any) -> dict[str, Any]:
    """What `mixed` reads of a line."""
    method = {"ratio": 0.3, "lambda1": 1.0, "lambda2": 0.1, "selection": "concept", "lr_neurons": 1e-3}
    line = {"group": group, "variant": variant, "method": method | dict(VARIANTS.get(variant, {}))}
    line |= {"train": {"steps": 800}, "sample": {"steps": 12}, "cells": [[1, "single", "a", [0], 2, 0.5]]}
    return line | {"base": "b", "judge": "j"} | changed


def test_what_has_its_line_is_not_made_again(tmp_path: Path) -> None:
    experiment = Experiment("main", "cns", 1, 0)
    settings = dataclasses.asdict(experiment.settings(tmp_path))
    line = {"group": "main", "variant": "cns", "number": 1, "seed": 0, "order": 0, "count": 7, "base": "b"}
    line |= {part: settings[part] for part in ("method", "train", "sample")} | {"judge": judge_id()}
    line = json.loads(json.dumps(line | {"cells": [[1, "single", "a", [0], 2, 0.5]]}))
    assert has_line(experiment, tmp_path, 2, [line], "b")
    assert not has_line(experiment, tmp_path, 4, [line], "b")
    assert not has_line(experiment, tmp_path, 2, [line], "another model")
    assert not has_line(dataclasses.replace(experiment, seed=1), tmp_path, 2, [line], "b")
    assert not has_line(dataclasses.replace(experiment, train={"steps": 400}), tmp_path, 2, [line], "b")


def test_lines_that_differ_as_their_variants_do_go_together() -> None:
    ratio = a_line("ratio10", "ratio")
    ratio["method"]["ratio"] = 0.1
    assert mixed([*map(a_line, VARIANTS), ratio]) == ""


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("train.steps", {"train": {"steps": 400}}),
        ("sample.steps", {"sample": {"steps": 20}}),
        ("base", {"base": "other"}),
        ("judge", {"judge": "other"}),
        ("pictures a prompt", {"cells": [[1, "single", "a", [0], 4, 0.5]]}),
        ("method.lr_neurons", {"method": a_line("full_kv")["method"] | {"lr_neurons": 2e-3}}),
    ],
)
def test_lines_of_other_settings_are_not_compared(name: str, changed: dict[str, Any]) -> None:
    """Else a table would pair CNS at today's rates with ablations at yesterday's."""
    assert mixed([a_line("cns"), a_line("full_kv", **changed)]) == name


def test_a_trial_in_the_table() -> None:
    score = {"learning": 0.5, "average": 0.25, "first": [0.9, 0.6]}
    line = {
        **{"variant": "base", "number": 1, "seed": 100, "order": 3, "concepts": ["cat", "dog"]},
        "cells": [[1, "single", "a <cat> cat", [0], 4, 0.7, 0.6, 0.5]],
        "summary": {"found": score, "clip_i": score},
        "zero_shot": {"control": {"before": {"a": 0.5, "b": 1.0}, "after": {"a": 0.5, "b": 0.8}}, "unchanged": 0.7},
        "masks": [{"mask_share": 0.1}, {"mask_share": 0.3}],
    }
    cells = row(json.loads(json.dumps(line)))
    assert len(cells) == len(HEAD)
    assert cells == [
        "base",
        "set 1, concepts 4 to 5, seed 100, 4 a prompt",
        "50.0",
        "25.0",
        "90.0",
        "60.0",
        "50.0",
        "25.0",
        "86.7",
        "70.0",
        "20.0",
    ]
