"""Protection within runs: what it leaves, resumed to the bit, a promise kept, and what a base model knew held, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_runs import CONCEPTS, finished, kept, values

from cns_jax.core.settings import SettingsError, build
from cns_jax.core.tree import fingerprint, flatten
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.runs.ledger import Ledger
from cns_jax.engine.runs.patching import apply
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.fit import Fit, Interrupted
from cns_jax.engine.teach.plan import plan, step_cost
from cns_jax.engine.teach.protecting import base_prompts, general_ids, general_prompts
from cns_jax.engine.teach.protection_plan import protection_lines
from cns_jax.engine.teach.sequence import TrainingRun, run
from cns_jax.engine.teach.step import train_steps
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import TruncatedPromptWarning, Vocabulary
from cns_jax.weights.folder import read_folder
from cns_jax.weights.locate import Address

pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")  # 20 positions
LIMIT = 1e-4
FOURTH = {"name": "two_tone_rabbit", "class_word": "toy"}


def settings(model: Path | str, folder: Path, **changes: Any) -> RunSettings:
    config = values(Path(model), folder)
    config |= {"report": {"pictures": 0, "sheets": False}, "calibration": "miniature"}
    config["method"]["name"] = "protected"
    config["train"] |= {"batch": 4, "snr_gamma": 4.0}  # a compilation of its own: others are counted
    for name, value in changes.items():
        config[name] = {**config.get(name, {}), **value} if isinstance(value, Mapping) else value
    return build(RunSettings, config)


def rows(folder: Path) -> list[dict[str, Any]]:
    return Ledger(folder).read()["concepts"]


def weights(folder: Path) -> list[dict[str, np.ndarray]]:
    return [load_file(folder / row["weights"]) for row in rows(folder)]


def moved(folder: Path, field: str = "worst") -> list[float]:
    return [entry[field] for row in rows(folder) for entry in row["certificate"]]


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished protected run, and how often its step was compiled."""
    folder = tmp_path_factory.mktemp("protected") / "whole"
    before = train_steps.jitted._cache_size()
    run(settings(tiny_folder, folder))
    return {"folder": folder, "compiled": train_steps.jitted._cache_size() - before}


def test_all_lessons_share_one_compilation(whole: dict[str, Any]) -> None:
    """The first one too, which has nothing but general prompts to protect."""
    assert whole["compiled"] == 1


def test_what_a_protected_run_leaves(whole: dict[str, Any], tiny_folder: Path) -> None:
    folder = whole["folder"]
    named = [[entry["name"] for entry in row["certificate"]] for row in rows(folder)]
    assert named == [list(CONCEPTS[:i]) for i in range(3)]
    assert all(0 < mean <= worst for mean, worst in zip(moved(folder, "mean"), moved(folder), strict=True))
    assert all(entry["layer"].endswith("kernel") for row in rows(folder) for entry in row["certificate"])
    base = flatten(cross_attention_kernels(read_folder(tiny_folder).load().params["unet"]))
    for index, tensors in enumerate(weights(folder)):
        assert tensors["moment"].shape == (32, 32) and np.linalg.eigvalsh(tensors["moment"]).min() > -1e-4
        for name, before in base.items():
            assert (tensors[f"memory.kernels.{name}"] != before).mean() > 0.9, name
        assert (tensors["memory.rows_rd"][index] != 0).all() and not tensors["memory.rows_rd"][index + 1 :].any()
    assert len(list((folder.parent / "cache" / "moments").iterdir())) == 1
    assert not (folder.parent / "cache" / "priors").exists()
    assert json.loads((folder / "config.json").read_text())["train"]["prior_batch"] == 0


def test_a_stronger_pull_moves_earlier_concepts_less(whole: dict[str, Any], tiny_folder: Path, tmp_path: Path) -> None:
    run(settings(tiny_folder, tmp_path / "strong", protect={"strength": 5.0, "directions": 0}))
    assert max(moved(tmp_path / "strong", "mean")) < 0.5 * max(moved(whole["folder"], "mean"))


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a signal while that step is logged, in the second lesson."""
    log = Fit._log

    def logging(self: Fit, name: str, at: int, *rest: Any) -> None:
        log(self, name, at, *rest)
        self.stop.asked |= name == CONCEPTS[1] and at == step

    monkeypatch.setattr(Fit, "_log", logging)


def test_a_stop_between_checks_of_the_promise_changes_no_bit(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "train": {"steps": 40, "save_every": 20}, "concepts": [{"name": name} for name in CONCEPTS[:2]],
        "protect": {"strength": 0.0, "limit": LIMIT},
    }  # fmt: skip
    run(settings(tiny_folder, tmp_path / "once", **changes))
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        stop_at(8, patched)  # asked for while the call up to step 10 runs, and steps 8 and 12 are checked
        run(settings(tiny_folder, tmp_path / "stopped", **changes))
    assert {path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()} >= {"1000010"}
    run(settings(tiny_folder, tmp_path / "stopped", **changes))
    for one, other in zip(weights(tmp_path / "once"), weights(tmp_path / "stopped"), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_promise_is_kept_and_the_lesson_learns_all_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    def of(limit: float) -> Path:
        folder = tmp_path / f"{limit}"
        method = {"lr_neurons": 0.1}
        run(settings(tiny_folder, folder, method=method, protect={"strength": 0.0, "limit": limit}))
        return folder

    assert min(moved(of(0.0))) > 100 * LIMIT
    assert 0 < max(moved(of(LIMIT))) <= LIMIT
    first, second, third = weights(of(LIMIT))
    for before, after in ((first, second), (second, third)):
        kernels = [name for name in before if name.startswith("memory.kernels.")]
        changes = [np.abs(after[name] - before[name]).max() for name in kernels]
        assert min(changes) > 1e-3


def test_protection_moves_no_weight_that_a_method_did_not_select(tiny_folder: Path, tmp_path: Path) -> None:
    """Neither by its pull nor by its promise."""
    protect = {"enabled": "on", "strength": 1.0, "limit": LIMIT}
    changes = {"method": {"name": "cns", "lr_neurons": 0.1}, "train": {"batch": 3}}
    run(settings(tiny_folder, tmp_path / "run", protect=protect, **changes))
    assert 0 < max(moved(tmp_path / "run")) <= LIMIT
    base = cross_attention_kernels(read_folder(tiny_folder).load().params["unet"])
    before = flatten(base)
    for row in rows(tmp_path / "run"):
        after = kept(tmp_path / "run" / row["weights"], base)
        masks, count = flatten(after.mask), 0
        for name, kernel in flatten(after.memory.kernels).items():
            changed = kernel != before[name]
            assert not changed[~masks[name]].any(), name
            count += changed.sum()
        assert count > 0
        before = flatten(after.memory.kernels)


def test_a_run_of_another_method_and_an_old_version_goes_on_protected(tiny_folder: Path, tmp_path: Path) -> None:
    """Its files hold no moments; in its own folder the other method is refused."""
    old = finished(tiny_folder, tmp_path / "old")
    assert all("moment" not in load_file(old / row["weights"]) for row in rows(old))
    new = {"concepts": [*({"name": name} for name in CONCEPTS), FOURTH]}
    with pytest.raises(
        SettingsError, match=r"another calibration .*method\.name \('cns' there, 'protected' now\).*--config.after"
    ):
        run(settings(tiny_folder, old, **new))
    for name, strength in (("free", 0.0), ("held", 50.0)):
        asked = settings(tiny_folder, tmp_path / name, after=str(old), protect={"strength": strength}, **new)
        run(asked)
        assert [entry["name"] for entry in rows(tmp_path / name)[-1]["certificate"]] == list(CONCEPTS)
    assert max(moved_last(tmp_path / "held")) < 0.2 * max(moved_last(tmp_path / "free"))


def moved_last(folder: Path) -> list[float]:
    return [entry["mean"] for entry in rows(folder)[-1]["certificate"]]


@pytest.mark.parametrize("kind", ["patched", "exported"])
def test_what_the_base_model_was_taught_is_protected_too(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    old, out = finished(tiny_folder, tmp_path / "old"), tmp_path / kind
    if kind == "patched":
        files = export(ExportRequest(str(old), "patch", str(tmp_path / "patches")))[0]
        apply(Address(str(tiny_folder)), [str(file) for file in files], str(out))
    else:
        export(ExportRequest(str(old), "diffusers", str(out)))
    tokens = [f"<{name}>" for name in CONCEPTS]
    source = find_source(Address(str(out)))
    prompts = base_prompts(source, Address(str(out)))
    assert list(prompts) == tokens
    known = "a <tiger_cat> cat" if kind == "patched" else "a photo of <tiger_cat>"
    assert known in prompts["<tiger_cat>"] and len(set(prompts["<tiger_cat>"])) > 20
    asked = settings(out, tmp_path / "run", concepts=[FOURTH])
    planned = protection_lines(asked, source, Vocabulary(load_tokenizer(source.tokenizer)), "")
    assert f"those of the base model ({', '.join(tokens)}) included" in planned[0]
    training = TrainingRun(asked)
    free = training.protection.pull()
    training._recall_groups()
    held = training.protection.pull()
    assert (
        free is not None and held is not None and np.linalg.norm(held.shrink_kd) > 1.05 * np.linalg.norm(free.shrink_kd)
    )
    groups = training.protection.groups
    assert [group.name for group in groups] == tokens
    kernels = cross_attention_kernels(read_folder(out).load().params["unet"])
    for group in groups:  # each is held to what it is in the base model, and has a row of its own
        assert fingerprint(group.kernels()) == fingerprint(kernels)
    assert len({group.moment_dd.tobytes() for group in groups}) == 3


def test_the_plan_of_a_protected_run(tiny_folder: Path, tmp_path: Path) -> None:
    protect = {"directions": 8, "limit": LIMIT}
    asked = settings(tiny_folder, tmp_path / "run", protect=protect)
    lines = "\n".join(plan(asked))
    for said in (
        "trains: all ",
        "protects: 400 general prompts and every taught concept; 8 of 32 directions; 0.0041 MB in the run's folder",
        "text features of general prompts: to encode",
        "promise: no lesson changes an earlier concept's keys or values by over 0.01 %",
        "prior images: none (method.prior_images is False)",
        "36 in all, 4 images of 16 px each",
    ):
        assert said in lines, lines
    source = find_source(asked.address)
    off = settings(tiny_folder, tmp_path / "run", protect={"enabled": "off"})
    more, less = step_cost(asked, source), step_cost(off, source)
    kernels = flatten(cross_attention_kernels(source.shapes["unet"])).values()
    work = sum(4 * 8 * np.prod(kernel.shape) for kernel in kernels)
    assert work <= more.flops - less.flops < 1.3 * work
    assert more.pull == 4 * (2 * 8 * 32 + sum(8 * kernel.shape[1] for kernel in kernels)) and less.pull == 0
    assert "protects" not in "\n".join(plan(off))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "protect.captions='.*captions.txt' cannot be read"),
        (b" \n\n", "holds no caption; write one a line"),
        (b"a \xff dog\n", "cannot be read: .*utf-8"),
        (b"a photo of <nobody>\n", "protect.captions: unknown token <nobody>"),
    ],
)
def test_captions_that_will_not_do(tiny_folder: Path, tmp_path: Path, text: bytes | None, said: str) -> None:
    file = tmp_path / "captions.txt"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(SettingsError, match=said):
        plan(settings(tiny_folder, tmp_path / "run", protect={"captions": str(file)}))


def test_captions_too_long_are_told_once(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("a red dog\n" + "a very red dog on the beach beside a blue mug and a white boat in the snow\n" * 2)
    asked = settings(tiny_folder, tmp_path / "run", protect={"captions": str(file)})
    prompts = general_prompts(asked)
    assert len(prompts) == 2  # each once
    with pytest.warns(TruncatedPromptWarning) as told:
        general_ids((*prompts, f"{prompts[1]} again"), Vocabulary(load_tokenizer(tiny_folder / "tokenizer")))
    assert len(told) == 1
    assert "2 of 3 general prompts (protect.captions) are too long; the prompt has" in str(told[0].message)


def test_a_setting_of_the_other_method_is_told(tiny_folder: Path, tmp_path: Path) -> None:
    from tiny_runs import call, flags

    config = values(tiny_folder, tmp_path / "run")
    config["method"]["name"] = "protected"
    known = flags(config)
    known = [flag for flag in known if "train.batch" not in flag] + ["--config.train.batch=4"]
    done = call("train", "--config=mini", *known, "--config.method.ratio=0.2", "--dry_run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "config.method.ratio changes nothing: method protected has no such setting" in done.stderr
    assert "lr_token" not in done.stderr
    wrong = call("train", "--config=mini", "--config.method.name=protcted", "--dry_run")
    assert wrong.returncode == 1 and "config.method.name='protcted' must be one of cns, protected" in wrong.stderr
    assert shutil.which("python") is None or "Traceback" not in wrong.stderr
