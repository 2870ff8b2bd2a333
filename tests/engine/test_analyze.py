"""The command that analyses neurons: on the shipped miniature, a trained run, and a full-size model if there is one."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import call, kept

from cns_jax.core.settings import SettingsError
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.measure.analysis import POSITIONS, AnalysisRequest, analyze, measure, prompt_norms, subject_of
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.runs.source import find_source
from cns_jax.evals import neuron_prompts
from cns_jax.neurons.score import feature_norms
from cns_jax.weights.locate import Address

pytestmark = pytest.mark.computes

QUICK = AnalysisRequest(ratios=(0.1, 0.5), orders=3, draws=2)
FULL_SIZE = Path(os.environ.get("CNS_JAX_SD15", "absent"))
"""A diffusers folder of Stable Diffusion 1.5; random weights suffice."""


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "analysis.json").read_text())


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analyze(dataclasses.replace(QUICK, out=str(tmp_path_factory.mktemp("analysis") / "miniature")))


def test_everything_is_written(miniature: Path) -> None:
    found = result(miniature)
    names = {file.stem for file in miniature.glob("*.png")}
    assert names == {file.stem for file in miniature.glob("*.svg")}
    assert {"always_selected", "prompt_similarity", "updated_weights", "overlap_set_1", "layers", "positions"} <= names
    page = (miniature / "tables.md").read_text()
    assert "tiger_cat" in page and "53 %" in page and "nan" not in page.lower()
    assert set(found["by_positions"]) == set(POSITIONS) and set(found["by_ratio"]) == {"0.1", "0.3", "0.5"}
    assert found["sizes"]["K/V"] == found["main"]["weights"] < found["sizes"]["UNet"] < found["sizes"]["whole model"]


def test_shares_are_consistent(miniature: Path) -> None:
    main = result(miniature)["main"]
    assert len(main["concept"]) == 21 and len(main["overlaps"]) == 3
    for name, share in main["concept"].items():
        assert 0 <= share <= main["base"][name] <= main["selected"] <= 0.3
        assert share >= main["base"][name] - main["general"] - 1e-12
    assert 0 < main["general_of_selected"] < 1 and set(main["always"]) == {"miniature", "diverse"}
    for pool, curve in main["always"].items():
        assert len(curve["mean"]) == {"miniature": 72, "diverse": 100}[pool]
        assert all(low <= high for low, high in zip(curve["low"], curve["high"], strict=True))
    # the general mask of 20 prompts lies on the curve, where another order could put it
    assert main["general_of_selected"] == pytest.approx(main["always"]["miniature"]["mean"][19], abs=0.15)


def test_choices_change_the_numbers(miniature: Path) -> None:
    found = result(miniature)
    assert len({one["general_of_selected"] for one in found["by_positions"].values()}) > 1
    general = [found["by_ratio"][ratio]["general"] for ratio in ("0.1", "0.3", "0.5")]
    assert general == sorted(general) and general[0] < general[2]
    lists = found["main"]["lists"]
    assert lists["any 5 prompts"]["general"]["mean"] > lists["all 72 prompts"]["general"]["mean"]
    assert lists["any 1 prompt"]["general"]["mean"] == found["main"]["selected"]


def test_more_shared_words_more_shared_neurons(miniature: Path) -> None:
    matrix = np.asarray(result(miniature)["main"]["similarity"])
    np.testing.assert_array_equal(matrix, matrix.T)
    mean = [np.diagonal(matrix, k).mean() for k in range(11)]
    assert mean[0] == 1 and mean[1] > mean[5] > mean[10]


def test_norms_are_those_that_training_selects_with() -> None:
    prompts = list(neuron_prompts.pool_of("miniature")[:40])  # more than a batch
    source = find_source(Address("miniature"))
    norms = prompt_norms(source, prompts, "float32")
    studio = Studio.open(source, (), 0, 64, compute="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = studio.vocabulary.encode(prompts)
        hidden = studio.encode(ids)
    for positions in POSITIONS:
        wanted = feature_norms(hidden, studio.vocabulary.caption_mask(ids, positions))
        np.testing.assert_allclose(norms[positions], wanted, rtol=2e-4, atol=1e-5)


@pytest.fixture(scope="module")
def of_run(trained) -> dict[str, Any]:
    request = dataclasses.replace(QUICK, ratios=(), run=str(trained["folder"]))
    return dataclasses.asdict(measure(subject_of(request), request))


def test_a_runs_masks_are_chosen_again(trained, of_run: dict[str, Any]) -> None:
    assert of_run["stored"] and set(of_run["main"]["differing"].values()) == {0}
    ledger = json.loads((trained["folder"] / "ledger.json").read_text())["concepts"]
    assert list(of_run["main"]["concept"]) == [row["name"] for row in ledger]
    for row in ledger:
        assert of_run["main"]["concept"][row["name"]] == pytest.approx(row["mask"]["mask_share"])
        assert of_run["main"]["base"][row["name"]] == pytest.approx(row["mask"]["base_share"])
        assert of_run["main"]["general_of_selected"] == pytest.approx(row["mask"]["general_of_selected"])
    overlaps = json.loads((trained["folder"] / "overlaps.json").read_text())
    found = of_run["main"]["overlaps"]["the run"]
    assert found["pairwise"] == pytest.approx(overlaps["pairwise_iou"])
    assert found["joint"] == pytest.approx(overlaps["joint_iou"])


def test_a_runs_own_pictures_stay_as_they_are(trained) -> None:
    files = sorted((trained["folder"] / "data").rglob("*.*"))
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in files]
    subject = subject_of(dataclasses.replace(QUICK, run=str(trained["folder"])))
    assert len(subject.groups["the run"]["tiger_cat"]) == 5
    assert before == [(file.stat().st_mtime_ns, file.read_bytes()) for file in files] and before


def test_a_run_counts_its_stored_masks(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Learned, base: Any, index: int = -1, rows: int = 0) -> Any:
        snapshot = kept(self.directory / self.concepts[index]["weights"], base["unet"])
        return snapshot._replace(mask=jax.tree.map(np.ones_like, snapshot.mask))

    monkeypatch.setattr(Learned, "snapshot", full)
    request = dataclasses.replace(QUICK, ratios=(), run=str(trained["folder"]), after="spotted_dog")
    main = measure(subject_of(request), request).main
    assert main.concept == {"tiger_cat": 1.0, "spotted_dog": 1.0} and min(main.differing.values()) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratios": (0.0,)}, "ratios"),
        ({"orders": 0}, "orders"),
        ({"calibration": "other"}, "calibration"),
        ({"run": "runs/mini", "data_root": "miniature:1"}, "not both"),
    ],
)
def test_impossible_requests(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        dataclasses.replace(QUICK, **change)


def test_command_line(tmp_path: Path) -> None:
    wrong = call("analyze", f"--run={tmp_path}", f"--out={tmp_path / 'out'}")
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: ") and "config.json" in wrong.stderr
    done = call(
        "analyze", "--data_root=miniature:2", "--ratios=0.3", "--orders=2", "--draws=1", f"--out={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    assert "clown_fish" in done.stdout and done.stdout.rstrip().endswith(str(tmp_path / "out"))


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    if not FULL_SIZE.is_dir():
        pytest.skip(f"{FULL_SIZE} is no folder (set CNS_JAX_SD15 to a diffusers folder of Stable Diffusion 1.5)")
    request = dataclasses.replace(QUICK, model=str(FULL_SIZE), ratios=(), draws=1, out=str(tmp_path))
    found = result(analyze(request))
    assert found["sizes"]["K/V"] == 19_169_280 and len(found["main"]["layers"]["keys"]) == 16
    assert found["main"]["selected"] == pytest.approx(230 / 768)
