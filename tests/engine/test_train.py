"""A training run: what it leaves, one compilation, resume after a kill to the bit, and errors before any training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tiny_runs import CONCEPTS, ROOT, call, command, config_file, flags, kept, values

from cns_jax.core.settings import SettingsError, build
from cns_jax.core.tree import flatten
from cns_jax.engine.settings import MOST_STEPS, RunSettings
from cns_jax.engine.teach.sequence import TrainingRun
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.folder import read_folder


def snapshots(folder: Path) -> list[Path]:
    return [folder / "weights" / f"{i + 1:02d}_{name}.safetensors" for i, name in enumerate(CONCEPTS)]


def test_all_concepts_share_one_compilation(trained) -> None:
    assert trained["compiled"] == 1


def test_what_a_run_leaves(trained) -> None:
    folder = trained["folder"]
    ledger = json.loads((folder / "ledger.json").read_text())
    assert [row["name"] for row in ledger["concepts"]] == list(CONCEPTS)
    assert [row["token"] for row in ledger["concepts"]] == [f"<{name}>" for name in CONCEPTS]
    assert all(row["mask"]["neurons"] > 0 for row in ledger["concepts"])
    assert ledger["concepts"][0]["mask"]["regularized"] == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["train"]["steps"] == 12 and config["method"]["ratio"] == 0.3
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["part"], r["step"]) for r in rows] == [(c, s) for c in CONCEPTS for s in range(2, 13, 2)]
    assert {"loss", "concept_loss", "prior_loss", "l_reg", "steps_per_second"} <= set(rows[0])
    assert list((folder / "tensorboard").iterdir())
    for name in ("overview.png", *(f"samples/{i + 1:02d}_{c}.png" for i, c in enumerate(CONCEPTS))):
        assert min(Image.open(folder / name).size) > 50


def test_the_overlaps_are_those_of_the_masks_in_the_files(trained) -> None:
    """Intersection over union, of the mean pair and of all three."""
    base = cross_attention_kernels(read_folder(trained["values"]["model"]).load().params["unet"])
    masks = [
        np.concatenate([np.ravel(mask) for mask in flatten(kept(file, base).mask).values()])
        for file in snapshots(trained["folder"])
    ]

    def iou(*some: np.ndarray) -> float:
        return float(np.logical_and.reduce(some).sum() / np.logical_or.reduce(some).sum())

    pairs = [iou(masks[a], masks[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert 0 < min(pairs) and max(pairs) < 1
    found = json.loads((trained["folder"] / "overlaps.json").read_text())
    np.testing.assert_allclose((found["pairwise_iou"], found["joint_iou"]), (np.mean(pairs), iou(*masks)), rtol=1e-6)


def test_only_the_concepts_neurons_and_row_move(trained) -> None:
    """From file to file: bit-identical outside the mask, and in every other token's row."""
    base = cross_attention_kernels(read_folder(trained["values"]["model"]).load().params["unet"])
    before, rows = flatten(base), np.zeros((5, 32), np.float32)
    for index, file in enumerate(snapshots(trained["folder"])):
        after = kept(file, base)
        moved = 0
        for name, kernel in flatten(after.memory.kernels).items():
            changed = kernel != before[name]
            assert not changed[~flatten(after.mask)[name]].any(), name
            moved += changed.sum()
        assert moved > 0
        others = np.arange(5) != index
        np.testing.assert_array_equal(after.memory.rows_rd[others], rows[others])
        assert (after.memory.rows_rd[index] != 0).all()
        before, rows = flatten(after.memory.kernels), after.memory.rows_rd


def test_killed_in_concept_two_and_resumed(trained, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    arguments = [config_file(values(tiny_folder, folder), tmp_path / "config.py")]
    process = subprocess.Popen(
        command("train", *arguments),
        cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 300
    of_two = str(MOST_STEPS + 4)  # the checkpoint of the second lesson's step 4, when it is complete
    while time.monotonic() < deadline and process.poll() is None and not (folder / "checkpoints" / of_two).exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, said[-2000:]
    assert not snapshots(folder)[1].exists()
    again = call("train", *arguments)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "resuming spotted_dog at step" in again.stderr, again.stderr[-2000:]
    for ours, whole in zip(snapshots(folder), snapshots(trained["folder"]), strict=True):
        one, two = load_file(ours), load_file(whole)
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    steps = [(r["part"], r["step"]) for r in map(json.loads, metrics.read_text().splitlines())]
    assert len(steps) == len(set(steps)) == 18
    assert "Done. Look at" in again.stdout
    third = call("train", *arguments)
    assert third.returncode == 0 and "nothing is left to do" in third.stdout, third.stderr[-2000:]


def test_interrupt_saves_and_says_how_to_go_on(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    config = values(tiny_folder, folder)
    config["train"] |= {"steps": 4000, "save_every": 2000}
    process = subprocess.Popen(
        command("train", "--config=configs/mini.py", *flags(config)),
        cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    metrics = folder / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and "run the same command again to go on from there" in said, said[-2000:]
    assert list((folder / "checkpoints").iterdir())


def test_other_settings_in_a_used_folder(trained) -> None:
    changed = {**trained["values"], "seed": 5}
    with pytest.raises(SettingsError, match="holds a run with another seed"):
        TrainingRun(build(RunSettings, changed))


def test_batch_must_fit_the_devices(tiny_folder: Path, tmp_path: Path) -> None:
    config = values(tiny_folder, tmp_path / "x")
    config["train"]["batch"] = 4
    with pytest.raises(SettingsError, match=r"train.batch \+ train.prior_batch = 5 .* 4 devices"):
        TrainingRun(build(RunSettings, config))
    assert len(jax.devices()) == 4


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.train.stesp=3", "config.train.stesp is not a setting; did you mean config.train.steps?"),
        ("--config.steps=3", "did you mean config.train.steps or config.prior.sample.steps or config.sample.steps?"),
        ("--config.data_root=/nowhere", "/nowhere"),
        ("--config.model=/nowhere", "model='/nowhere' does not exist"),
        ("--config.train.steps=7", "train.steps=7 must be a multiple of train.steps_per_call"),
        ("--config.train.decay_steps=-1", "train.decay_steps=-1 must not be negative"),
        ("--config.method.ratio=1.5", "method.ratio=1.5 must be above 0 and below 1"),
        ("--config.data_root=miniature:4", "the drawn sets are miniature:1, :2 and :3"),
    ],
)
def test_mistakes_are_told_in_a_line(tiny_folder: Path, tmp_path: Path, flag: str, said: str) -> None:
    known = [f for f in flags(values(tiny_folder, tmp_path / "run")) if f.split("=")[0] != flag.split("=")[0]]
    done = call("train", "--config=configs/mini.py", *known, flag)
    assert done.returncode == 1 and said in done.stderr, done.stderr[-2000:]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert "Traceback" not in done.stderr
