"""What holds of every method from a run's first step to its exported files; a new method is tested by being in METHODS.

With them goes `mixing`, a toy whose model depends on the prompt.
"""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from mixing import Mixing
from safetensors.numpy import load_file
from tiny_runs import values

from cns_jax.core.settings import SettingsError, build
from cns_jax.core.tree import fingerprint
from cns_jax.engine.draw.generate import generate
from cns_jax.engine.draw.request import Request
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.measure.evaluation import EvaluationRequest, evaluate
from cns_jax.engine.pages.report.page import write_report
from cns_jax.engine.runs.export import export
from cns_jax.engine.runs.export.exporter import KINDS, ExportRequest
from cns_jax.engine.runs.learned import Learned, base_kernels
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach import sequence
from cns_jax.engine.teach.fit import Interrupted
from cns_jax.engine.teach.plan import plan, stored_bytes
from cns_jax.engine.teach.step import train_steps
from cns_jax.methods import METHODS
from cns_jax.weights.snapshot import Snapshot, load_snapshot, save_snapshot

pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")
NAMES = [*METHODS, "mixing"]
RATES = {"lr_neurons": 1e-2, "lr_token": 1e-2, "lr_lora": 1e-2}


class Taught(NamedTuple):
    """A finished run of two concepts. compiled: how often the step was; base: fingerprints of the base model's
    parameters in memory before and after all lessons."""

    name: str
    folder: Path
    compiled: int
    base: tuple[str, str]


def settings(name: str, model: Path, folder: Path, **changes: Any) -> RunSettings:
    config = values(model, folder)
    own = {"ratio": 0.3, "calibration_prompts": 4, "templates": "captions", **RATES}
    known = {field.name for field in dataclasses.fields(METHODS[name])}
    config["method"] = {"name": name, **{key: value for key, value in own.items() if key in known}}
    config["concepts"] = config["concepts"][:2]
    config["train"]["snr_gamma"] = 4.0  # a compilation of its own: others are counted
    config["train"]["batch"] = 3 if METHODS[name]().prior_weight else 4  # and a prior image, over four devices
    return build(RunSettings, {**config, "report": {"pictures": 0, "sheets": False}, **changes})


@pytest.fixture(scope="module", params=NAMES)
def taught(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "mixing", Mixing)
        folder, before = tmp_path_factory.mktemp(request.param) / "run", train_steps.jitted._cache_size()
        run = sequence.TrainingRun(settings(request.param, tiny_folder, folder))
        begun = fingerprint(run.studio.params)
        run.run()
        base = begun, fingerprint(run.studio.params)
        yield Taught(request.param, folder, train_steps.jitted._cache_size() - before, base)


def test_lessons_compile_once_and_leave_the_base_model_alone(taught: Taught) -> None:
    assert taught.compiled == 1
    assert taught.base[0] == taught.base[1]


def test_killed_and_resumed_is_the_same_to_the_bit(
    taught: Taught, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within the second lesson, after a checkpoint."""
    asked = settings(taught.name, tiny_folder, tmp_path / "run")
    record = sequence.Metrics.write

    def write(self: Any, part: str, step: int, logs: Any) -> None:
        record(self, part, step, logs)
        if (part, step) == ("spotted_dog", 8):
            raise Interrupted("here")

    with monkeypatch.context() as patch:
        patch.setattr(sequence.Metrics, "write", write)
        with pytest.raises(Interrupted):
            sequence.run(asked)
    sequence.run(asked)
    files = sorted(path.name for path in (taught.folder / "weights").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "run" / "weights").iterdir()) and len(files) == 2
    for file in files:
        one, two = load_file(taught.folder / "weights" / file), load_file(tmp_path / "run" / "weights" / file)
        assert one.keys() == two.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, two[name], err_msg=f"{file}: {name}")


def test_each_lesson_teaches_and_keeps_what_was_taught(taught: Taught) -> None:
    """Every stage has weights of its own, and a prompt without a concept is sampled from finite ones."""
    stages = Stages.open(str(taught.folder))
    applied = [stages.at(stage) for stage in range(3)]
    leaves = [{fingerprint({"x": leaf}) for leaf in jax.tree.leaves(each)} for each in applied]
    assert leaves[1] - leaves[0] and leaves[2] - leaves[1]
    rows = [np.asarray(each.rows_rd) for each in applied]
    np.testing.assert_array_equal(rows[1][0], rows[2][0])  # the first concept's, which the second lesson has not
    assert not rows[0].any() and rows[2][1].any() and not rows[2][2:].any()


def test_what_a_lesson_keeps_is_what_the_plan_says(taught: Taught) -> None:
    """The file holds little beside, and the plan counts every tensor in it."""
    found = Stages.open(str(taught.folder))
    told = stored_bytes(found.learned.settings, find_source(found.learned.settings.address))
    for row in found.learned.concepts:
        tensors = load_file(taught.folder / row["weights"])
        assert sum(array.nbytes for array in tensors.values()) == pytest.approx(told, abs=8 * len(tensors))
    lines = "\n".join(plan(found.learned.settings))
    assert f"{told / 1e6:.2f} MB are kept of a lesson" in lines and "nothing is left to teach" in lines


def test_memory_survives_its_file(taught: Taught, tmp_path: Path) -> None:
    """Random values of every leaf, in a run that has reserved two rows more since."""
    learned, rng = Learned.of(str(taught.folder)), np.random.default_rng(0)
    base, method = {"unet": base_kernels(find_source(learned.settings.address))}, learned.settings.method

    def shapes(rows: int) -> Any:
        return jax.eval_shape(lambda unet: method.empty({"unet": unet}, rows, 32), base["unet"])

    def random(leaf: Any) -> np.ndarray:
        values = rng.normal(size=leaf.shape).astype(np.float32)
        return values > 0 if leaf.dtype == bool else values

    memory = jax.tree.map(random, shapes(3))
    save_snapshot(tmp_path / "x.safetensors", Snapshot(memory, None))
    found = load_snapshot([tmp_path / "x.safetensors"], shapes(5), shapes(6), base["unet"]).memory
    assert jax.tree.structure(found) == jax.tree.structure(memory)
    for one, two in zip(jax.tree.leaves(memory), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one, two[tuple(slice(size) for size in one.shape)])
        assert two.dtype == one.dtype and np.count_nonzero(two) == np.count_nonzero(one)
    assert found.rows_rd.shape == (5, 32)


def test_a_run_is_drawn_measured_and_told_of(taught: Taught, tmp_path: Path) -> None:
    grid = generate(
        Request(run=str(taught.folder), prompts=("a photo of a <tiger_cat> cat",), num=1, out=str(tmp_path))
    )
    assert grid.is_file()
    asked = EvaluationRequest(str(taught.folder), stages="ends", num=1, zero_shot=0, clip="miniature")
    found = json.loads(evaluate(asked).read_text())
    assert {score["stage"] for score in found["scores"]} == {0, 1, 2}
    page = write_report(taught.folder).read_text()
    assert "tiger cat" in page and html.escape(METHODS[taught.name].title) in page


def test_every_format_is_written_or_refused_with_the_reason(taught: Taught, tmp_path: Path) -> None:
    for kind in KINDS:
        request = ExportRequest(str(taught.folder), kind, out=str(tmp_path / kind))
        refusal = ""
        if taught.name == "mixing" and kind != "textual-inversion":
            refusal = "samples with other weights for each prompt"
        elif taught.name == "textual_inversion" and kind in ("lora", "custom-diffusion"):
            refusal = "changes no weights"
        if refusal:
            with pytest.raises(SettingsError, match=refusal):
                export(request)
        else:
            assert all(file.stat().st_size for file in export(request)[0] if file.is_file())


@pytest.mark.parametrize("name", METHODS)
def test_a_hyperparameter_out_of_range_is_one_clear_error(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    for field in dataclasses.fields(METHODS[name]):
        if isinstance(field.default, bool) or not isinstance(field.default, int | float):
            continue
        with pytest.raises(SettingsError, match=rf"method\.{field.name}=-1"):
            METHODS[name](**{field.name: type(field.default)(-1)})
    config = settings(name, tiny_folder, tmp_path)
    with pytest.raises(SettingsError, match="method.no_such_thing"):
        build(RunSettings, {**dataclasses.asdict(config), "method": {"name": name, "no_such_thing": 1}})
