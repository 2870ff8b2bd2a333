"""A run goes on: concepts added later, more steps, from another run's end; what has changed is named."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_runs import ROOT, values

from cns_jax.core.files import FileError
from cns_jax.core.settings import SettingsError, build
from cns_jax.core.types import Trainable, TrainState
from cns_jax.data.folder import DataError
from cns_jax.engine.lock import holding
from cns_jax.engine.measure.evaluation import EvaluationRequest, evaluate
from cns_jax.engine.pages.closing import finished
from cns_jax.engine.runs.concepts import taught_concepts
from cns_jax.engine.runs.folder import check_base, claim
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.runs.ledger import Ledger
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.fit import Diverged, Fit, Interrupted
from cns_jax.engine.teach.lessons import lessons_of
from cns_jax.engine.teach.plan import plan
from cns_jax.engine.teach.sequence import run
from cns_jax.miniature.concepts import write_concept_folders

NAMES = {"a_cat": "tiger_cat", "b_mug": "checked_mug", "c_dog": "spotted_dog"}  # folder -> drawn concept
TAUGHT_FIRST = ("b_mug", "c_dog")
pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")  # 20 positions


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    write_concept_folders(1, root, names=list(NAMES.values()))
    return root


def put(drawn: Path, root: Path, names: Iterable[str]) -> Path:
    for name in names:
        shutil.copytree(drawn / NAMES[name], root / name)
    return root


def settings(model: Path, data: Path, folder: Path, **changes: Any) -> RunSettings:
    config = values(model, folder)
    config |= {"data_root": str(data), "concepts": [], "report": {"pictures": 0, "sheets": False}}
    config["train"] |= {"snr_gamma": 5.0, **changes.pop("train", {})}  # a compilation of its own: others are counted
    return build(RunSettings, {**config, **changes})


def rows(folder: Path) -> list[dict[str, Any]]:
    return Ledger(folder).read()["concepts"]


def names(folder: Path) -> list[str]:
    return [row["name"] for row in rows(folder)]


def weights(folder: Path) -> list[dict[str, np.ndarray]]:
    return [load_file(folder / row["weights"]) for row in rows(folder)]


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def two(tiny_folder: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of b_mug and c_dog; its pictures lie in the folder photos beside it."""
    root = tmp_path_factory.mktemp("two")
    run(settings(tiny_folder, put(drawn, root / "photos", TAUGHT_FIRST), root / "run"))
    return root


@pytest.fixture
def again(two: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be changed."""
    copied = Path(shutil.copytree(two, tmp_path / "again"))
    config = json.loads((copied / "run" / "config.json").read_text())
    (copied / "run" / "config.json").write_text(json.dumps(config | {"data_root": str(copied / "photos")}))
    return copied


def test_a_concept_added_before_the_others_is_taught_after_them(
    tiny_folder: Path, drawn: Path, two: Path, again: Path, tmp_path: Path
) -> None:
    """In place and from another run's end: to the bit the same, and what was taught before stays as it was."""
    put(drawn, again / "photos", ["a_cat"])
    run(settings(tiny_folder, again / "photos", again / "run"))
    assert names(again / "run") == ["b_mug", "c_dog", "a_cat"]
    assert [row["token"] for row in rows(again / "run")] == ["<b_mug>", "<c_dog>", "<a_cat>"]
    before, after = weights(two / "run"), weights(again / "run")
    assert all(same(one, other) for one, other in zip(before, after[:2], strict=True))
    moved = after[2]["memory.rows_rd"] != after[1]["memory.rows_rd"]
    assert moved[2].all() and not moved[[0, 1, 3, 4]].any()
    run(settings(tiny_folder, again / "photos", tmp_path / "new", after=str(two / "run")))
    assert names(tmp_path / "new") == ["b_mug", "c_dog", "a_cat"]
    assert all(same(one, other) for one, other in zip(after, weights(tmp_path / "new"), strict=True))
    assert rows(again / "run")[2]["mask"]["regularized"] > 0  # the masks of both earlier concepts are known


def test_what_was_taught_needs_its_folder_no_more(tiny_folder: Path, again: Path) -> None:
    shutil.rmtree(again / "photos" / "b_mug")
    lessons = lessons_of(settings(tiny_folder, again / "photos", again / "run"))
    assert not lessons.ahead and "b_mug was taught before and stays in the model" in " ".join(lessons.notes)
    shutil.rmtree(again / "photos")
    lessons = lessons_of(settings(tiny_folder, again / "photos", again / "run"))
    assert not lessons.ahead and "so there is nothing new to teach" in " ".join(lessons.notes)
    concepts = taught_concepts(Learned.of(str(again / "run")))
    assert [len(c.image_paths) for c in concepts] == [5, 5]
    assert all(caption for c in concepts for caption in c.captions)
    run(settings(tiny_folder, again / "photos", again / "run"))  # nothing to do, and no error
    assert names(again / "run") == list(TAUGHT_FIRST)


def test_the_flag_concept_may_speak_of_what_was_taught_but_not_of_what_is_nowhere(
    tiny_folder: Path, drawn: Path, again: Path
) -> None:
    """The command that a report repeats keeps its --concept when the taught folder has gone."""
    photos, said = again / "photos", [{"name": "b_mug", "class_word": "mug"}]
    shutil.rmtree(photos / "b_mug")
    put(drawn, photos, ["a_cat"])
    (concept,) = lessons_of(settings(tiny_folder, photos, again / "run", said=said)).ahead
    assert concept.name == "a_cat"
    for name, near in (("a_catt", "a_cat"), ("c_dogg", "c_dog")):
        mistyped = settings(tiny_folder, photos, again / "run", said=[{"name": name, "kind": "style"}])
        with pytest.raises(DataError, match=rf"there is no concept '{name}'; did you mean {near}\?"):
            lessons_of(mistyped)


def test_a_run_of_an_old_version_keeps_its_pictures_once_it_goes_on(
    tiny_folder: Path, drawn: Path, again: Path
) -> None:
    """They lay in the user's folder alone, which the settings of the run that goes on need not name any more."""
    shutil.rmtree(again / "run" / "data")
    (again / "photos" / "b_mug" / "gone.png").symlink_to("nowhere.png")
    others = put(drawn, again / "others", ["a_cat"])
    asked = settings(tiny_folder, others, again / "run")
    assert claim(asked) == again / "run"
    shutil.rmtree(again / "photos")
    concepts = taught_concepts(Learned.of(str(again / "run")))
    assert [len(c.image_paths) for c in concepts] == [5, 5]


def test_a_new_run_after_another_needs_its_folders(tiny_folder: Path, two: Path, tmp_path: Path) -> None:
    asked = settings(tiny_folder, tmp_path / "nowhere", tmp_path / "new", after=str(two / "run"))
    with pytest.raises(DataError, match="data_root .*nowhere is not a folder"):
        lessons_of(asked)


def test_one_folder_of_two_concepts_is_no_renamed_one(tiny_folder: Path, again: Path) -> None:
    (again / "photos" / "b_mug").rename(again / "photos" / "mugs")
    chosen = [{"name": "b_mug", "folder": "mugs"}, {"name": "c_dog"}, {"name": "look", "folder": "mugs"}]
    asked = settings(tiny_folder, again / "photos", again / "run", concepts=chosen)
    assert [concept.name for concept in lessons_of(asked).ahead] == ["look"]


def test_pictures_added_to_a_taught_folder_are_named(tiny_folder: Path, drawn: Path, again: Path) -> None:
    shutil.copy(drawn / "tiger_cat" / "00.png", again / "photos" / "b_mug" / "new.png")
    (note,) = lessons_of(settings(tiny_folder, again / "photos", again / "run")).notes
    assert "b_mug is not what b_mug was taught with any more (1 more), which changes nothing" in note
    (again / "photos" / "b_mug" / "new.png").unlink()
    assert not lessons_of(settings(tiny_folder, again / "photos", again / "run")).notes
    (again / "photos" / "b_mug" / "00.txt").write_text("a mug on the moon")
    (note,) = lessons_of(settings(tiny_folder, again / "photos", again / "run")).notes
    assert "any more (other captions)" in note
    shutil.copy(drawn / "tiger_cat" / "00.png", again / "photos" / "b_mug" / "00.mask.png")
    (note,) = lessons_of(settings(tiny_folder, again / "photos", again / "run")).notes
    assert "any more (other captions and other masks)" in note


def test_a_renamed_folder_and_another_token_are_refused(tiny_folder: Path, again: Path) -> None:
    photos = again / "photos"
    chosen = [{"name": "b_mug", "token": "<other>"}, {"name": "c_dog"}]
    with pytest.raises(SettingsError, match="b_mug was taught with the token <b_mug>, now it is <other>"):
        lessons_of(settings(tiny_folder, photos, again / "run", concepts=chosen))
    (photos / "b_mug").rename(photos / "my_mug")
    with pytest.raises(SettingsError, match="my_mug holds the pictures that b_mug was taught with, and b_mug is gone"):
        lessons_of(settings(tiny_folder, photos, again / "run"))
    chosen = [{"name": "b_mug"}, {"name": "c_dog"}, {"name": "mine", "folder": "my_mug", "token": "<c_dog>"}]
    with pytest.raises(SettingsError, match="mine has the token <c_dog>, which c_dog was taught with"):
        lessons_of(settings(tiny_folder, photos, again / "run", concepts=chosen))


def test_a_fourth_name_in_the_list_and_the_plan_of_it(tiny_folder: Path, trained, tmp_path: Path) -> None:
    """Of a drawn set, named by settings; the run was copied, and its path is spelled otherwise."""
    folder = Path(shutil.copytree(trained["folder"], tmp_path / "copied"))
    spelled = Path(os.path.relpath(folder))
    config = {**trained["values"], "name": "mine", "run": str(spelled)}
    config["concepts"] = [{"name": "glass_style"}, *config["concepts"]]
    asked = build(RunSettings, config)
    lessons = lessons_of(asked, tmp_path / "drawn")
    (concept,) = lessons.ahead
    lines = "\n".join(plan(asked))
    assert "knows 3 concepts already: tiger_cat (<tiger_cat>), spotted_dog" in lines and "1 concept to add:" in lines
    assert f"{concept.token} {concept.class_word}" in lines and "12 a concept, 12 in all" in lines
    run(asked)
    assert names(folder) == [*(c["name"] for c in trained["values"]["concepts"]), concept.name]


def test_settings_that_differ_are_named_with_both_values(tiny_folder: Path, two: Path) -> None:
    method = {"lr_neurons": 1e-2, "lr_token": 0.5, "calibration_prompts": 4}
    asked = settings(tiny_folder, two / "photos", two / "run", seed=3, method=method)
    with pytest.raises(SettingsError) as error:
        lessons_of(asked)
    said = str(error.value)
    assert "method.lr_token (0.01 there, 0.5 now), seed (0 there, 3 now)" in said
    assert f"--config.after={two / 'run'}" in said
    moved = dataclasses.replace(settings(tiny_folder, two / "photos", two / "run"), vae="moved")
    assert not lessons_of(moved).ahead  # fingerprints tell whether it is the same one
    with pytest.raises(SettingsError, match="with the VAE moved is not the model that .* was started from"):
        check_base(moved, "another")
    own = settings(tiny_folder, two / "photos", two / "run")
    own = dataclasses.replace(own, prior=dataclasses.replace(own.prior, folder=str(two)))
    with pytest.raises(SettingsError, match=r"another prior\.folder \('' there, "):
        lessons_of(own)
    drawn = settings(tiny_folder, Path("miniature:1"), two / "run")
    with pytest.raises(SettingsError, match="another data_root"):
        lessons_of(drawn)


def test_more_steps_of_the_last_lesson_equal_as_many_at_once(
    tiny_folder: Path, again: Path, tmp_path: Path, two: Path
) -> None:
    asked = settings(tiny_folder, again / "photos", again / "run", train={"steps": 16})
    assert lessons_of(asked).extends
    assert any("the last lesson goes on to step 16" in line for line in plan(asked))
    run(asked)
    assert [row["steps"] for row in rows(again / "run")] == [12, 16] and names(again / "run") == list(TAUGHT_FIRST)
    kept = sorted(path.name for path in (again / "run" / "weights").iterdir())
    assert kept == ["01_b_mug.safetensors", "02_c_dog_16_steps.safetensors"]
    concepts = [{"name": "b_mug", "steps": 12}, {"name": "c_dog", "steps": 16}]
    run(settings(tiny_folder, two / "photos", tmp_path / "once", concepts=concepts))
    at_once = weights(tmp_path / "once")
    assert all(same(one, other) for one, other in zip(weights(again / "run"), at_once, strict=True))
    assert not same(at_once[1], weights(two / "run")[1])
    shutil.rmtree(again / "run" / "checkpoints")
    for doing in (plan, run):
        with pytest.raises(SettingsError, match="c_dog cannot go on from step 16: its checkpoint is not in"):
            doing(settings(tiny_folder, again / "photos", again / "run", train={"steps": 20}))
    assert names(again / "run") == list(TAUGHT_FIRST)


def test_more_steps_of_lessons_that_cannot_go_on_are_named(tiny_folder: Path, again: Path, tmp_path: Path) -> None:
    """Earlier lessons, those of another run, and those of old versions, whose rows say no steps."""
    longer = {"steps": 16}
    (note,) = lessons_of(settings(tiny_folder, again / "photos", again / "run", train=longer)).notes
    assert "which stay as they are: b_mug; only the last lesson can go on" in note
    new = settings(tiny_folder, again / "photos", tmp_path / "new", after=str(again / "run"), train=longer)
    assert "stay as they are: b_mug, c_dog; only the last lesson can go on" in "\n".join(plan(new))
    ledger = Ledger(again / "run").read()
    old = [{key: value for key, value in row.items() if key != "steps"} for row in ledger["concepts"]]
    Ledger(again / "run").write(ledger["base"], ledger["base_kernels"], old)
    lessons = lessons_of(settings(tiny_folder, again / "photos", again / "run", train=longer))
    assert not lessons.ahead and "b_mug, c_dog; an earlier version of cns-jax taught them" in lessons.notes[0]
    assert not lessons_of(settings(tiny_folder, again / "photos", again / "run")).notes


def run_until_it_saves(asked: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Fit.run

    def interrupted(self: Fit, *rest: Any) -> Any:
        save = self.save

        def stopping(step: int, state: Any) -> None:
            save(step, state)
            raise Interrupted("here")

        object.__setattr__(self, "save", stopping)
        return whole(self, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "run", interrupted)
        with pytest.raises(Interrupted):
            run(asked)


def test_a_folder_added_while_a_lesson_was_interrupted(
    tiny_folder: Path, drawn: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lesson that is going on comes first; changed pictures start it again; without them it is left."""
    photos = put(drawn, tmp_path / "photos", ["b_mug"])
    asked = settings(tiny_folder, photos, tmp_path / "run")
    run_until_it_saves(asked, monkeypatch)
    put(drawn, photos, ["a_cat"])
    lessons = lessons_of(asked)
    assert [c.name for c in lessons.ahead] == ["b_mug", "a_cat"] and lessons.resumes and not lessons.notes
    shutil.copytree(tmp_path / "run", tmp_path / "shorter")
    run(settings(tiny_folder, photos, tmp_path / "shorter", concepts=[{"name": "b_mug"}], train={"steps": 2}))
    assert [row["steps"] for row in rows(tmp_path / "shorter")] == [4]  # what it had, not what was asked for later
    gone = settings(tiny_folder, photos, tmp_path / "run", concepts=[{"name": "a_cat"}])
    assert [c.name for c in lessons_of(gone).ahead] == ["a_cat"] and not lessons_of(gone).resumes
    assert "b_mug was stopped before its end, and it is not asked for any more" in lessons_of(gone).notes[0]
    extra = photos / "b_mug" / "extra.png"
    shutil.copy(drawn / "tiger_cat" / "00.png", extra)
    assert "what it is taught with has changed, so it starts again" in lessons_of(asked).notes[0]
    extra.unlink()
    run(asked)
    assert names(tmp_path / "run") == ["b_mug", "a_cat"]
    assert same(weights(tmp_path / "run")[0], weights(two / "run")[0])


def test_a_concept_beyond_the_reserved_rows_while_a_lesson_was_interrupted(
    tiny_folder: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint's rows are fewer than the run has now; the lesson is the one that it would have been."""
    photos = put(drawn, tmp_path / "photos", ["b_mug"])
    asked = settings(tiny_folder, photos, tmp_path / "run", reserved_rows=1)
    run_until_it_saves(asked, monkeypatch)
    put(drawn, photos, ["a_cat"])
    run(asked)
    chosen = [{"name": "b_mug"}, {"name": "a_cat"}]
    run(settings(tiny_folder, photos, tmp_path / "once", reserved_rows=16, concepts=chosen))
    assert names(tmp_path / "run") == ["b_mug", "a_cat"]
    pairs = zip(weights(tmp_path / "run"), weights(tmp_path / "once"), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_a_rate_too_high_stops_before_anything_is_kept_of_it(tiny_folder: Path, again: Path, drawn: Path) -> None:
    put(drawn, again / "photos", ["a_cat"])
    method = {"lr_neurons": 1e30, "lr_token": 1e-2, "calibration_prompts": 4}
    asked = settings(tiny_folder, again / "photos", again / "new", after=str(again / "run"), method=method)
    with pytest.raises(SettingsError) as error:
        run(asked)
    said = str(error.value)
    assert "a_cat: the loss is nan at step" in said and "method.lr_neurons=1e+30" in said
    assert f"--config.after={again / 'new'}" in said
    assert names(again / "new") == list(TAUGHT_FIRST)
    checkpoints = again / "new" / "checkpoints"
    assert not checkpoints.exists() or not list(checkpoints.iterdir())
    told = [json.loads(line) for line in (again / "new" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in told)


def test_weights_that_are_not_finite_are_not_saved() -> None:
    """The last update before a checkpoint is in no loss yet."""
    fit = Fit(None, None, 2, None, lambda *_: None, None)  # type: ignore[arg-type]
    kernels = {"a": np.ones((2, 2), np.float32)}

    def check(loss: float, weight: float) -> None:
        rows_rd = np.array([[0.0, weight]], np.float32)
        fit._check("x", 2, {"loss": np.float32(loss)}, TrainState(2, Trainable(kernels, rows_rd), None))  # type: ignore

    check(1.0, 2.0)
    for loss, weight in ((1.0, np.nan), (1.0, np.inf), (np.nan, 1.0)):
        with pytest.raises(Diverged, match="x: the loss is .* at step 2, and weights are not finite"):
            check(loss, weight)


def test_small_pictures_within_a_lesson(tiny_folder: Path, drawn: Path, two: Path, tmp_path: Path) -> None:
    photos = put(drawn, tmp_path / "photos", ["b_mug"])
    folder = tmp_path / "run" / "samples" / "steps" / "01_b_mug"
    folder.mkdir(parents=True)
    for name in ("18.jpg", "steps.json"):  # of a longer lesson that was stopped and starts again
        (folder / name).write_text('{"prompts": [], "steps": {"18": {}}}')
    run(settings(tiny_folder, photos, tmp_path / "run", train={"sample_every": 6}))
    told = json.loads((folder / "steps.json").read_text())
    assert len(told["prompts"]) == 3 and list(told["steps"]) == ["6", "12"]
    assert {path.name for path in folder.iterdir()} == {"6.jpg", "12.jpg", "steps.json"}
    assert same(weights(tmp_path / "run")[0], weights(two / "run")[0])  # to look changes nothing


def test_a_finished_run_says_so(tiny_folder: Path, again: Path) -> None:
    asked = settings(tiny_folder, again / "photos", again / "run")
    assert finished(asked, lessons_of(asked)) == ""  # no report yet
    (again / "run" / "report.html").write_text("")
    assert "has learned b_mug, c_dog, and nothing is left to do" in finished(asked, lessons_of(asked))
    assert f"add a folder of pictures to {again / 'photos'}" in finished(asked, lessons_of(asked))


_HOLD = """
import sys, time
from pathlib import Path
from cns_jax.engine.lock import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_writer_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(SettingsError, match=rf"{folder} is in use: process {other.pid} on .* writes to it since"):
            with holding(folder):
                raise AssertionError("two writers")
        with pytest.raises(SettingsError, match="is in use: process"):  # training may be forgetting its pictures
            evaluate(EvaluationRequest(str(folder)))
    finally:
        other.kill()
        other.wait()
    with holding(folder), holding(folder):  # of a dead process, and twice by one
        assert (folder / ".lock.json").exists()
    assert not (folder / ".lock.json").exists()


def test_a_folder_that_nothing_was_written_to_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(SettingsError), holding(tmp_path / "run"):
        raise SettingsError("something else")
    assert not (tmp_path / "run").exists()


def test_a_ledger_that_was_damaged(again: Path) -> None:
    file = again / "run" / "ledger.json"
    whole = json.loads(file.read_text())
    for damaged in ("", "{", "[]", '{"concepts": 3}', '{"concepts": [{"name": "x"}]}', '{"concepts": ["x"]}'):
        file.write_text(damaged)
        with pytest.raises(FileError, match=r"ledger\.json"):
            Ledger(again / "run").read()
    whole["concepts"][0]["weights"] = "../../elsewhere.safetensors"
    file.write_text(json.dumps(whole))
    with pytest.raises(FileError, match="lies outside of the run's folder"):
        Ledger(again / "run").read()
    whole["concepts"][0] |= {"weights": "weights/x.safetensors", "name": "../x"}
    file.write_text(json.dumps(whole))
    with pytest.raises(FileError, match=r"'\.\./x' is no name of a concept"):
        Ledger(again / "run").read()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\\b"])
def test_a_concepts_name_is_a_files_name(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="must be the name of a file"):
        settings(tiny_folder, tmp_path, tmp_path / "run", concepts=[{"name": name}])


def test_a_folder_that_lost_what_tells_of_its_weights_is_refused(tiny_folder: Path, again: Path, drawn: Path) -> None:
    """A new run there would write over them."""
    asked, folder = settings(tiny_folder, again / "photos", again / "run"), again / "run"
    files = {name: (folder / name).read_bytes() for name in ("ledger.json", "config.json")}
    for name, said in (("ledger.json", "holds 01_b_mug.safetensors and no ledger.json"), ("config.json", "is gone")):
        (folder / name).unlink()
        with pytest.raises(SettingsError, match=said):
            lessons_of(asked)
        (folder / name).write_bytes(files[name])
    assert not lessons_of(asked).ahead


def test_weights_that_are_gone_cut_short_or_changed_are_named(tiny_folder: Path, again: Path, drawn: Path) -> None:
    asked, file = (
        settings(tiny_folder, again / "photos", again / "run"),
        again / "run" / rows(again / "run")[1]["weights"],
    )
    whole = file.read_bytes()
    put(drawn, again / "photos", ["a_cat"])
    file.write_bytes(whole[:-9])
    with pytest.raises(FileError, match=r"02_c_dog.* bytes, it had"):
        lessons_of(asked)
    file.write_bytes(whole[:-9] + bytes(9))
    with pytest.raises(FileError, match="02_c_dog.* is not as it was written"):
        run(asked)
    assert names(again / "run") == list(TAUGHT_FIRST)
    file.unlink()
    with pytest.raises(FileError, match="02_c_dog.* is gone, which holds what c_dog taught"):
        finished(asked, lessons_of(asked))


def test_a_damaged_checkpoint_costs_no_more_than_its_steps(tiny_folder: Path, two: Path, again: Path) -> None:
    """Here of the end of a lesson that was not recorded any more: an earlier one serves, to the bit."""
    folder = again / "run"
    ledger = json.loads((folder / "ledger.json").read_text())
    (folder / "ledger.json").write_text(json.dumps({**ledger, "concepts": ledger["concepts"][:1]}))
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdecimal() else -1)
    for file in newest.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    run(settings(tiny_folder, again / "photos", folder))
    assert all(same(one, other) for one, other in zip(weights(folder), weights(two / "run"), strict=True))


def test_more_steps_without_the_folder(tiny_folder: Path, again: Path) -> None:
    """The run has kept the pictures; but another data_root that is no folder is a mistake."""
    shutil.rmtree(again / "photos")
    lessons = lessons_of(settings(tiny_folder, again / "photos", again / "run", train={"steps": 16}))
    assert lessons.extends and [c.name for c in lessons.ahead] == ["c_dog"]
    with pytest.raises(DataError, match="typo is not a folder"):
        lessons_of(settings(tiny_folder, again / "typo", again / "run"))


def test_what_is_said_of_after_and_of_fewer_steps(tiny_folder: Path, two: Path, again: Path) -> None:
    photos, folder = again / "photos", again / "run"
    with pytest.raises(SettingsError, match="is the run itself"):
        lessons_of(settings(tiny_folder, photos, folder, after=os.path.relpath(folder)))
    (note,) = lessons_of(settings(tiny_folder, photos, folder, after=str(two / "run"))).notes
    assert "changes nothing" in note and "has begun already" in note
    (note,) = lessons_of(settings(tiny_folder, photos, folder, train={"steps": 4})).notes
    assert note == "the lesson of c_dog had 12 steps; fewer of them now change nothing"


def test_a_run_that_failed_before_it_began_holds_nothing(tiny_folder: Path, drawn: Path, tmp_path: Path) -> None:
    photos = put(drawn, tmp_path / "photos", ["b_mug"])
    method = {"lr_neurons": 1e30, "lr_token": 1e-2, "calibration_prompts": 4}
    with pytest.raises(SettingsError, match="the loss is nan") as error:
        run(settings(tiny_folder, photos, tmp_path / "run", method=method))
    assert "--config.after" not in str(error.value)
    run(settings(tiny_folder, photos, tmp_path / "run"))
    assert names(tmp_path / "run") == ["b_mug"]
