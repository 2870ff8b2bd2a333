"""The runs behind benchmarks/results/protection: their settings, and the concepts of long ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.experiments import Experiment
from benchmarks.protection.experiments import GROUPS, ORDERS, protected
from benchmarks.protection.long_runs import long_runs
from benchmarks.protection.variations import mixed_sets, sequence, variations, write_pictures
from cns_jax.core.types import SCENE, STYLE, SUBJECT
from cns_jax.data.folder import read_concepts
from cns_jax.data.spec import ConceptSpec
from cns_jax.engine.measure.judging import WorldJudge, load_judge
from cns_jax.engine.settings import RunSettings
from cns_jax.miniature.concepts import SETS, render_concept
from configs import mini


def test_the_method_has_the_settings_of_the_demo_and_is_measured_as_cns_is(tmp_path: Path) -> None:
    demo, cns = mini.get_config().to_dict(), Experiment("main", "cns", 2, 1).settings(tmp_path)
    own = protected("main", 2, 1).settings(tmp_path)
    assert own.method.name == "protected" and own.protects and own.train.prior_batch == 0
    assert dataclasses.asdict(own.protect) == demo["protect"]
    assert all(demo["method"][name] in (value, None) for name, value in dataclasses.asdict(own.method).items())
    assert (own.train.steps, own.train.decay_steps) == (demo["train"]["steps"], demo["train"]["decay_steps"])
    assert own.train.save_every == own.train.steps
    same = ("data_root", "concepts", "seed", "sample", "report", "resolution", "calibration", "model")
    assert all(getattr(own, name) == getattr(cns, name) for name in same)


def test_groups_are_runs_of_their_own(tmp_path: Path) -> None:
    runs = [e for group in GROUPS.values() for e in group([1, 2, 3], [0, 1, 2])]
    assert len(runs) == 9 + len(ORDERS) == len({e.settings(tmp_path).directory for e in runs})
    kinds = {c.name: c.kind for row in SETS for c in row}
    firsts = [e.settings(tmp_path).concepts[0].name for e in GROUPS["order"]([1, 2, 3], [0])]
    assert [kinds[name] for name in firsts] == [SCENE, STYLE, SCENE]


def test_a_long_run_grows_and_is_otherwise_the_same(tmp_path: Path) -> None:
    first, *_, last = (run.settings(tmp_path) for run in long_runs(50))
    assert [len(s.concepts) for s in (first, last)] == [10, 50] and last.concepts[:10] == first.concepts
    assert isinstance(first, RunSettings) and dataclasses.replace(first, concepts=last.concepts) == last
    assert first.rows_for(10) == last.rows_for(50) == 50
    assert [len(run.settings(tmp_path).concepts) for run in long_runs(25)] == [10, 20, 25]


def test_variations_are_all_different() -> None:
    found = variations(29)
    specs = [c.subject for c in (*found, *(c for row in SETS for c in row)) if c.subject and c.subject.pattern]
    assert len({c.token for c in found}) == 29
    assert len({(s.kind, s.color, s.pattern.kind) for s in specs if s.pattern}) == len(specs) == 29 + 14
    assert variations(5) == found[:5]
    with pytest.raises(ValueError, match="are wanted"):
        variations(10_000)


def test_a_long_run_begins_with_a_mixture_like_that_of_its_end() -> None:
    drawn = sequence(50)
    assert len(set(drawn)) == 50 and {*mixed_sets()} < {*drawn}
    for part in (drawn[:10], drawn[-10:]):
        assert 1 <= sum(c.kind in (SCENE, STYLE) for c in part) <= 2
        assert 2 <= sum(c in mixed_sets() and c.kind == SUBJECT for c in part) <= 4
    assert sequence(20) == mixed_sets()[:20] and [c in SETS[1] for c in sequence(6)] == [False, True, False] * 2


def test_pictures_of_a_variation_are_a_folder_that_training_reads(tmp_path: Path) -> None:
    (one,) = variations(1)
    write_pictures(one, tmp_path)
    (found,) = read_concepts(tmp_path, [ConceptSpec(one.name, "", one.token, one.class_word, one.kind)])
    assert len(found.image_paths) == 5
    words = " ".join(filter(None, found.captions))
    assert one.class_word in words and not any(word in words for word in one.name.split("_")[:3])


def test_the_judge_finds_variations_in_their_own_renders_and_not_in_others() -> None:
    found = variations(29)
    judge = WorldJudge(load_judge(), {c.name: c for c in found})
    names = [[c.name] for c in found for _ in range(2)]
    images = np.stack([render_concept(c, index, "test")[0] for c in found for index in range(2)])
    assert judge.look(images, names)[0].mean() > 0.9
    others = names[24:] + names[:24]  # of the same kind in part
    assert judge.look(images, others)[0].mean() < 0.05
