"""The suite "concepts": what is drawn when, equal seeds, what is written, and nothing drawn twice."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cns_jax.core.settings import SettingsError
from cns_jax.data.prompts import Prompt, without_tokens
from cns_jax.engine.draw import stages as stages_module
from cns_jax.engine.measure.evaluation import EvaluationRequest, evaluate, plan
from cns_jax.evals.scores import PLAIN, SINGLE, TOGETHER, Score

pytestmark = pytest.mark.computes

NAMES = ("cat", "dog", "mug")
PROMPTS = [Prompt(f"a <{n}> {n} {i}", f"a {n} {i}", (n,)) for n in NAMES for i in range(2)]
PROMPTS.append(Prompt("a <cat> cat and a <dog> dog", "a cat and a dog", ("cat", "dog")))


@pytest.mark.parametrize(("stages", "counts"), [("all", [2, 4, 6]), ("ends", [2, 4, 6])])
def test_plan_of_three(stages: str, counts: list[int]) -> None:
    wanted = list(plan(PROMPTS, NAMES, stages))
    assert [(w.stage, w.kind) for w in wanted if w.kind != SINGLE] == [(0, PLAIN), (3, PLAIN), (3, TOGETHER)]
    assert [len(w.prompts) for w in wanted if w.kind == SINGLE] == counts
    assert wanted[0].texts[0] == "a cat 0" and wanted[1].texts[0] == "a <cat> cat 0"


def test_ends_leave_out_the_middle() -> None:
    """Each concept right after its lesson and at the end; the first after every lesson."""
    prompts = [Prompt(f"<{n}>", "", (n,)) for n in "abcd"]
    shown = {w.stage: [p.concepts[0] for p in w.prompts] for w in plan(prompts, "abcd", "ends") if w.kind == SINGLE}
    assert shown == {1: ["a"], 2: ["a", "b"], 3: ["a", "c"], 4: ["a", "b", "c", "d"]}


@pytest.fixture(scope="module")
def request_of(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> EvaluationRequest:
    out = tmp_path_factory.mktemp("evaluation")
    return EvaluationRequest(str(trained["folder"]), num=2, zero_shot=3, clip="miniature", out=str(out))


@pytest.fixture(scope="module")
def found(request_of: EvaluationRequest) -> dict[str, Any]:
    return json.loads(evaluate(request_of).read_text())


def test_what_is_written(found: dict[str, Any], request_of: EvaluationRequest) -> None:
    scores = [Score.of(row) for row in found["scores"]]
    singles = [s for s in scores if s.kind == SINGLE]
    assert len(singles) == 2 * 5 * (1 + 2 + 3)
    assert sum(s.kind == PLAIN for s in scores) == 2 * 2 * 15
    seeds: dict[str, set[int]] = {}
    for score in scores:  # the same at every stage, with and without tokens
        seeds.setdefault(without_tokens(score.prompt), set()).add(score.seed)
    assert all(len(own) == 2 for own in seeds.values()) and len(set.union(*seeds.values())) == 2 * len(seeds)
    assert all(-1 <= s.clip_i <= 1 and -1 <= s.clip_t <= 1 and s.found in (0.0, 1.0) for s in scores)
    cells = found["summary"]["clip_i"]["matrix"]
    assert cells[0][1] is None and cells[1][0] is not None
    last = [s.clip_i for s in singles if s.stage == 3 and s.concepts == (1,)]
    assert math.isclose(cells[2][1], np.mean(last), abs_tol=1e-5)
    rest = found["zero_shot"]
    assert rest["prompts"] == 3 and rest["unrelated"] < rest["unchanged"] <= 1
    assert "shown" not in rest and "control" not in rest  # the judge knows the miniature's pictures only
    attributes = found["summary"]["attributes"]
    assert set(attributes["pattern"]) == {"new", "end"} and attributes["pattern"]["end"] is not None
    assert attributes["scene"] == {"new": None, "end": None}  # subjects may be asked for anywhere
    assert all(-1 <= value <= 1 for value in found["summary"]["others"].values())
    assert "NaN" not in (Path(request_of.out) / "evaluation.json").read_text()


def test_pictures_lie_by_stage(found: dict[str, Any], request_of: EvaluationRequest) -> None:
    files = sorted(Path(request_of.out).glob("stage*/*.png"))
    assert {f.parent.name for f in files} == {"stage0", "stage1", "stage2", "stage3"}
    first = [f for f in files if f.parent.name == "stage1"]
    assert len(first) == 10
    same = Path(request_of.out, "stage2", first[0].name)  # the same prompt and noise one lesson later
    assert (np.asarray(Image.open(first[0])) != np.asarray(Image.open(same))).any()


def test_nothing_is_drawn_twice(
    found: dict[str, Any], request_of: EvaluationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("drawn again")

    removed = next(Path(request_of.out).glob("stage2/*.png"))
    monkeypatch.setattr(stages_module.Stages, "images", refuse)
    quiet = dataclasses.replace(request_of, zero_shot=0)
    again = json.loads(evaluate(quiet).read_text())
    assert again["scores"] == found["scores"] and again["zero_shot"] == {}
    removed.unlink()
    with pytest.raises(AssertionError, match="drawn again"):
        evaluate(quiet)


def test_prompts_without_a_token_are_refused(request_of: EvaluationRequest, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a photo of a <tiger_cat> cat\na photo of a cat\n")
    with pytest.raises(SettingsError, match=r"'a photo of a cat'.*knows <tiger_cat>"):
        evaluate(dataclasses.replace(request_of, prompts_file=str(file), out=str(tmp_path)))


def test_every_concept_needs_a_prompt_of_its_own(request_of: EvaluationRequest, tmp_path: Path) -> None:
    """Said before anything is drawn, since all pictures would be in vain."""
    file = tmp_path / "prompts.txt"
    file.write_text("a photo of a <tiger_cat> cat\na photo of a <tiger_cat> cat and a <spotted_dog> dog\n")
    with pytest.raises(SettingsError, match="no prompt asks for <spotted_dog>, <checked_mug> alone"):
        evaluate(dataclasses.replace(request_of, prompts_file=str(file), out=str(tmp_path)))
    assert not list(tmp_path.glob("stage*"))


def test_a_prompt_that_is_given_twice_counts_once(request_of: EvaluationRequest, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"a photo of a <{n}>\n" for n in ("tiger_cat", "spotted_dog", "checked_mug") * 2))
    asked = dataclasses.replace(request_of, prompts_file=str(file), out=str(tmp_path), zero_shot=0, num=1)
    scores = [Score.of(row) for row in json.loads(evaluate(asked).read_text())["scores"]]
    assert len([s for s in scores if s.kind == SINGLE]) == 1 + 2 + 3


@pytest.mark.parametrize("wrong", [{"num": 0}, {"stages": "some"}])
def test_requests_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        EvaluationRequest("run", **wrong)
