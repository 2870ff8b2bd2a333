"""--dry_run: the plan is right, nothing is written, and what would fail later fails now."""

from __future__ import annotations

import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_runs import CONCEPTS, call, config_file, values

from cns_jax.core.settings import SettingsError, build
from cns_jax.engine.draw.prior import prior_parts
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import PriorSettings, RunSettings
from cns_jax.engine.teach.plan import plan, step_cost
from cns_jax.weights.tensors import WeightsMismatch


def settings(model: Path, folder: Path) -> RunSettings:
    return build(RunSettings, values(model, folder))


def test_the_command_prints_the_plan_and_writes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    config = config_file(values(tiny_folder, tmp_path / "run"), tmp_path / "config.py")
    done = call("train", config, "--dry_run")
    assert done.returncode == 0, done.stderr[-2000:]
    for said in (
        "3 concepts:",
        "<tiger_cat> cat (subject): 5 pictures",
        "12 a concept, 36 in all",
        "TFLOP a step",
        "4 of 'a photo of a cat': to make, 2 steps each",
        "memory: at least",
        "all checks passed",
    ):
        assert said in done.stdout, done.stdout
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


def test_prior_images_that_are_there(trained, tmp_path: Path) -> None:
    lines = plan(build(RunSettings, {**trained["values"], "run": str(tmp_path / "another")}))
    assert sum("kept from before" in line for line in lines) == len(CONCEPTS)


def test_cost(tiny_folder: Path, tmp_path: Path) -> None:
    """Twice the images, twice the work; remat and bfloat16 keep less; a kernel that trains counts in float32."""
    base = settings(tiny_folder, tmp_path)
    source = find_source(base.address)

    def cost(compute: str = "float32", **changes):
        train = dataclasses.replace(base.train, batch=3, prior_batch=1, **changes)
        return step_cost(dataclasses.replace(base, train=train, compute=compute), source)

    one, half, remat = cost(), cost("bfloat16"), cost(remat=True)
    double = step_cost(dataclasses.replace(base, train=dataclasses.replace(base.train, batch=7)), source)
    assert 1.9 < double.flops / one.flops < 2.1
    assert remat.saved < 0.6 * one.saved and remat.flops > 1.1 * one.flops
    assert half.saved < 0.8 * one.saved and half.frozen < 0.6 * one.frozen and half.trained == one.trained
    assert one.flops > 0


def test_a_small_disk(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 1000))
    with pytest.raises(SettingsError, match=r"needs about .* GB on the disk .* are free; make room"):
        plan(settings(tiny_folder, tmp_path / "run"))


def test_what_would_fail_later(trained, tiny_folder: Path, tmp_path: Path) -> None:
    used = build(RunSettings, {**trained["values"], "seed": 9})
    with pytest.raises(SettingsError, match="holds a run with another seed"):
        plan(used)
    broken = Path(shutil.copytree(tiny_folder, tmp_path / "broken"))
    file = broken / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.bias"][0] = np.nan
    save_file(tensors, file)
    with pytest.raises(WeightsMismatch, match="NaN"):
        plan(settings(broken, tmp_path / "run"))
    with pytest.raises(SettingsError, match="model is empty; give 'miniature'"):
        dataclasses.replace(settings(tiny_folder, tmp_path / "run"), model="")


def test_prior_images_of_the_class_and_of_other_prompts() -> None:
    pool, settings = ("a red mug", "a blue dog", "a boat"), PriorSettings(images=8, general=0.5)
    own, others = prior_parts("a photo of a cat", pool, settings, 3, (64, 64))
    assert own.prompts == ("a photo of a cat",) * 4 and len(others.prompts) == 4
    assert set(others.prompts) == set(pool)  # all of them before any comes again
    assert sorted(own.seeds + others.seeds) == list(range(24, 32))
    assert [len(p.prompts) for p in prior_parts("a photo of a cat", pool, PriorSettings(images=8), 3, (64, 64))] == [8]
    assert [p.prompts for p in prior_parts("a", pool, PriorSettings(images=2, general=1.0), 3, (64, 64))][0][0] in pool
    with pytest.raises(SettingsError, match="prior.general=1.5 must be from 0 to 1"):
        PriorSettings(general=1.5)


def test_a_place_that_cannot_be_written_to_names_its_setting(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    good = settings(tiny_folder, tmp_path / "run")
    for name, said in (("file", "is a file"), ("loop", "is a link to nothing")):
        place = str(tmp_path / name)
        prior = dataclasses.replace(good.prior, directory=place)
        with pytest.raises(SettingsError, match=rf"{said}; choose another folder with --config\.prior\.directory"):
            plan(dataclasses.replace(good, prior=prior))
        with pytest.raises(SettingsError, match=rf"{said}; choose another folder with --config\.run"):
            plan(dataclasses.replace(good, run=place))
