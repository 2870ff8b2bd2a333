"""The commands that a report ends with, and the samples within a lesson, which name one too."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from report_runs import (
    EVIL,
    bare,
    picture,
    text_of,
    words_of,
)

from cns_jax.engine.pages.report.commands import next_steps
from cns_jax.engine.pages.report.given import keep_command
from cns_jax.engine.pages.report.page import write_report
from cns_jax.engine.runs.concepts import drawn_set
from cns_jax.engine.runs.learned import Learned


def test_it_ends_with_commands_for_this_run(tmp_path: Path) -> None:
    odd = tmp_path / "it's $HOME & more"
    settings = bare(odd)
    commands = [shlex.split(command) for command in words_of(write_report(odd / "run"))]
    assert [c[2] for c in commands] == [
        f"cns_jax.{x}" for x in ("generate", *["train"] * 3, "export", "export", "evaluate")
    ]
    run = f"{odd}/run"
    assert commands[0][3:] == [f"--run={run}", "--prompt=a photo of a <t0> cat", "--num=8"]
    given = [f"--config={settings.name}", f"--config.data_root={odd}/photos", f"--config.model={settings.model}"]
    likely = [*given, "--config.train.steps=40", "--config.method.name=cns"]
    assert commands[1][3:] == [*likely, f"--config.run={run}"]
    assert f"--config.after={run}" in commands[2] and f"--config.run={run}_more" in commands[2]
    assert "--config.data_root=NEW_PHOTOS" in commands[2] and "--config.train.steps=80" in commands[3]
    assert commands[4][3:] == [f"--run={run}", "--format=diffusers"] and "--format=lora" in commands[5]


def test_commands_say_again_what_trained_the_run(tmp_path: Path) -> None:
    bare(tmp_path)
    run = tmp_path / "run"
    assert "guessed from its settings" in text_of(write_report(run))
    keep_command(run, [
        "--dry_run", "--config", "my configs/mine.py", "-config.seed=3", "--config.model=a=b", "--config.run=elsewhere",
        "--noconfig.report.sheets", "--config.train.steps", "60", "--config.seed=4", "left", "--config.train.flip",
    ])  # fmt: skip
    page = write_report(run)
    assert "guessed" not in text_of(page)
    again, new, longer = [shlex.split(command)[3:] for command in words_of(page)[1:4]]
    switches = ["--noconfig.report.sheets", "--config.train.flip"]
    head = ["--config=my configs/mine.py", "--config.model=a=b", f"--config.run={run}", switches[0]]
    assert again == [*head, "--config.train.steps=60", "--config.seed=4", switches[1]]
    assert longer == [*head, "--config.train.steps=80", "--config.seed=4", switches[1]]
    assert {*new} == {*again} - {f"--config.run={run}"} | {
        f"--config.run={run}_more", f"--config.after={run}", "--config.data_root=NEW_PHOTOS", "--config.concepts=()",
    }  # fmt: skip
    keep_command(run, ["--config=mini", "--concept=my_cat: style, token=<a>", "--concept", "my dog", "--config.seed=3"])
    again, new = [shlex.split(command)[3:] for command in words_of(write_report(run))[1:3]]
    assert again == [
        "--config=mini", "--concept=my_cat: style, token=<a>", "--concept=my dog", "--config.seed=3",
        f"--config.run={run}",
    ]  # fmt: skip
    assert not [flag for flag in new if flag.startswith("--concept")]
    (tmp_path / "flags").write_text("--config.seed=5\n--num=3\n")
    keep_command(run, ["--config=mini", f"--flagfile={tmp_path / 'flags'}"])
    again = shlex.split(words_of(write_report(run))[1])[3:]
    assert again == ["--config=mini", "--config.seed=5", f"--config.run={run}"]
    for broken in ('{"config": "mini"', "[]", "{}", '{"config": 3}', '{"config": "mini", "config.seed": [1]}'):
        (run / "command.json").write_text(broken)
        assert "guessed from its settings" in text_of(write_report(run))


def test_lessons_of_several_lengths(tmp_path: Path) -> None:
    bare(tmp_path)
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    for row, steps in zip(ledger["concepts"], (40, 120, 80), strict=True):
        row["steps"] = steps
    (tmp_path / "run" / "ledger.json").write_text(json.dumps(ledger))
    text = text_of(write_report(tmp_path / "run"))
    assert "40 to 120 steps of 1 + 1 pictures" in text
    assert "Its lesson had 80 steps, a number of its own: raise it" in text
    assert not [command for command in words_of(tmp_path / "run" / "report.html") if "160" in command]
    ledger["concepts"][-1]["steps"] = 40
    (tmp_path / "run" / "ledger.json").write_text(json.dumps(ledger))
    page = write_report(tmp_path / "run")
    assert "Its lesson had 40 steps, and goes on from there to 80." in text_of(page)
    assert "--config.train.steps=80" in words_of(page)[3]


def test_how_to_add_a_concept(tmp_path: Path) -> None:
    bare(tmp_path)
    learned = Learned.of(str(tmp_path / "run"))

    def told(**changes: Any) -> tuple[str, str]:
        given = dataclasses.replace(learned, settings=dataclasses.replace(learned.settings, **changes))
        step = next_steps(given)[1]
        return step.how, " ".join(step.command)

    how, _ = told()
    assert how.startswith('Add {"name": "new_cat"} to the end of concepts') and how.endswith(f"in {tmp_path}/photos.")
    assert told(concepts=())[0] == f"Put a folder with its pictures beside the others, into {tmp_path}/photos."
    drawn: dict[str, Any] = {"data_root": "miniature:1", "model": "miniature", "name": "mini"}
    how, command = told(**drawn)
    assert how == 'Add {"name": "tiger_cat"} to the end of concepts in the configuration.'
    assert command.startswith("python -m cns_jax.train --config=mini --config.data_root=miniature:1 --config.train")
    rows = [{**learned.concepts[0], "name": name} for name in drawn_set(dataclasses.replace(learned.settings, **drawn))]
    learned = dataclasses.replace(learned, concepts=rows)
    assert "begin a new run" in told(**drawn)[0]


def test_a_run_in_the_current_folder_and_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shlex.split(words_of(write_report(tmp_path / "run"))[0])[3] == "--run=~/run"  # which the commands expand
    monkeypatch.chdir(tmp_path / "run")
    commands = [shlex.split(command) for command in words_of(write_report("."))]
    assert commands[0][3] == "--run=." and "--config.run=~/run_more" in commands[2]


def steps_folder(run: Path, value: Any, steps: Sequence[int] = (100, 200, 400)) -> None:
    folder = run / "samples" / "steps" / "01_my_cat"
    for step in steps:
        folder.mkdir(parents=True, exist_ok=True)
        picture(step, 96).resize((192, 48)).save(folder / f"{step}.jpg")
    (folder / "steps.json").write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    ("value", "best", "words"),
    [
        ({"100": {"clip_i": 0.6, "clip_t": 0.3}, "200": {"clip_i": 0.7, "clip_t": 0.29},
          "400": {"clip_i": 0.72, "clip_t": 0.2}}, 200,
         "By likeness (CLIP-I) + fit to the prompt (CLIP-T) 200 steps are best."),
        ({"100": {"clip_i": 0.6}, "200": {"clip_i": 0.7, "clip_t": 0.2}, "400": {"clip_i": 0.5, "clip_t": None}}, 200,
         "By likeness (CLIP-I) 200 steps are best."),
        ({"100": {"clip_i": 0.6}, "200": {"clip_i": 0.7}, "400": {"clip_i": 0.8}}, 400, "its last step is the best"),
        ({"100": {"clip_i": 0.6}, "200": {"clip_i": None}, "400": None}, 0, "no scores to tell the best step by"),
        ({"100": {"clip_i": math.nan}, "200": {"clip_i": 2}, "400": {"clip_i": "x"}}, 0, "no scores to tell"),
        ({"100": {"clip_i": math.nan}, "200": {"clip_i": 0.7}, "400": {"clip_i": 0.6}}, 0, "no scores to tell"),
        ([], 0, "no scores to tell"),
        (None, 0, "no scores to tell"),
    ],
)  # fmt: skip
def test_samples_within_a_lesson(tmp_path: Path, value: Any, best: int, words: str) -> None:
    bare(tmp_path)
    run = tmp_path / "run"
    prompts = ["a photo of a <t0> cat", f"a {EVIL}"] if value else None
    steps_folder(run, {"prompts": prompts, "steps": value})
    page = write_report(run)
    source, text = page.read_text(), text_of(page)
    assert source.count("of its lesson") == 3 and words in text and "<script" not in source
    assert text.count("highest score") == bool(best)
    assert not best or re.search(rf" {best} steps CLIP-I \d+(, CLIP-T \d+)? highest score", text)
    commands = [shlex.split(c) for c in words_of(page) if "_steps" in c]
    assert len(commands) == (best != 400)
    if commands:
        steps = best or "N"
        assert {f"--config.train.steps={steps}", f"--config.run={run}_{steps}_steps"} <= set(commands[0])
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**settings, "model": "miniature"}))  # of photographs
    text = text_of(write_report(run))
    assert "highest score" not in text and "Scores say little about such pictures: compare by eye" in text


def test_samples_within_a_lesson_that_are_many_or_broken(tmp_path: Path) -> None:
    bare(tmp_path)
    folder = tmp_path / "run" / "samples" / "steps" / "01_my_cat"
    many = range(10, 810, 10)
    scored = {str(step): {"clip_i": 1 - abs(step - 370) / 1000} for step in many}
    steps_folder(tmp_path / "run", {"steps": scored}, many)
    text = text_of(write_report(tmp_path / "run"))
    assert text.count(" steps CLIP-I") == 12 and "370 steps CLIP-I 100 highest score" in text
    assert "10 steps CLIP-I 64" in text and "800 steps CLIP-I 57" in text
    (folder / "steps.json").write_text('{"steps": {"10"')
    (folder / "10.jpg").write_bytes(b"no picture")
    (folder / "last.jpg").write_bytes(b"no step")
    text = text_of(write_report(tmp_path / "run"))
    assert " 10 steps" not in text and " 800 steps" in text and "no scores to tell the best step by" in text
    for file in folder.glob("*.jpg"):
        file.unlink()
    assert "step by step" not in text_of(write_report(tmp_path / "run"))
