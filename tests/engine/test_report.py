"""A run's report.html: on a made-up run folder, whole and with parts missing, and in a browser."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, requests
from PIL import Image

from cns_jax.core.settings import SettingsError
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.concepts import drawn_set, find_concepts
from cns_jax.engine.drawing import picture_file
from cns_jax.engine.evaluation import Wanted, plan
from cns_jax.engine.learned import Learned
from cns_jax.engine.report.bars import Part, time_bars
from cns_jax.engine.report.board import UNTRUSTED, board
from cns_jax.engine.report.commands import next_steps
from cns_jax.engine.report.figures import Line, heat_map, line_chart, ticks
from cns_jax.engine.report.given import keep_command
from cns_jax.engine.report.measures import measures
from cns_jax.engine.report.neurons import count_neurons
from cns_jax.engine.report.page import write_report
from cns_jax.engine.report.scores import verdict
from cns_jax.engine.report.svg import Look
from cns_jax.engine.settings import ConceptSettings, RunSettings, TrainSettings
from cns_jax.evals.scores import PLAIN, SINGLE, Score, summary
from cns_jax.neurons.statistics import iou
from cns_jax.weights.snapshot import Snapshot, save_snapshot

EVIL = "</title><script>alert(1)</script>"
NAMES = ("my_cat", "ink & paint", 'odd"dog')
KINDS = ("subject", "style", "subject")
LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2",
)


def picture(seed: int, side: int = 64) -> Image.Image:
    """A made-up scene: a disc before a slope of colours."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(40, 230, (3, 3))
    y, x = np.mgrid[:side, :side] / side
    disc = ((x - rng.uniform(0.3, 0.7)) ** 2 + (y - 0.55) ** 2 < 0.06)[..., None]
    return Image.fromarray(np.where(disc, c, a + (b - a) * y[..., None]).astype(np.uint8))


def save(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def settings_of(folder: Path) -> RunSettings:
    concepts = tuple(
        ConceptSettings(name, f"<t{i}>", "cat", kind)  # type: ignore[arg-type]
        for i, (name, kind) in enumerate(zip(NAMES, KINDS, strict=True))
    )
    return RunSettings(
        name=f"fake {EVIL}", data_root=str(folder / "photos"), model=f"someone/model{EVIL}", run=str(folder / "run"),
        concepts=concepts, train=TrainSettings(steps=40),
    )  # fmt: skip


def masks(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {f"{layer}.{kind}": {"kernel": rng.random((12, 10)) < 0.3} for layer in LAYERS for kind in ("to_k", "to_v")}
        for _ in range(count)
    ]


def score(stage: int, kind: str, prompt: str, concepts: tuple[int, ...], seed: int, judged: bool) -> Score:
    """Learned by its lesson; the first concept fades."""
    mine, lessons = concepts[0], stage - concepts[0] - 1
    good = 0.0 if kind == PLAIN else 1.0 - (0.35 * lessons if mine == 0 else 0.0)
    noise = (7 * len(prompt) + 13 * seed) % 100 / 5000
    found = float(good > 0.5) if judged else math.nan
    return Score(stage, kind, prompt, concepts, seed, 0.6 + 0.2 * good + noise, 0.28 + noise, found, {})


def evaluate_(folder: Path, settings: RunSettings, judged: bool = True, side: int = 64, num: int = 2) -> None:
    """An evaluation.json and its pictures, as engine/evaluation.py leaves them."""
    from cns_jax.data.prompts import evaluation_prompts

    concepts = find_concepts(settings)
    names = [c.name for c in concepts]
    rows: list[Score] = []
    out = folder / "run" / "evaluation"
    wanted: Wanted
    for wanted in plan(evaluation_prompts(concepts), names, "all"):
        for prompt, text in zip(wanted.prompts, wanted.texts, strict=True):
            asked = tuple(names.index(name) for name in prompt.concepts)
            for seed in range(num):
                file = picture_file(out / f"stage{wanted.stage}", text, seed)
                save(picture(len(rows), side), file)
                rows.append(score(wanted.stage, wanted.kind, prompt.text, asked, seed, judged))
    grades = {"before": {"scene": 0.9}, "after": {"scene": 0.85}}
    value = {
        "concepts": [{"name": name} for name in names],
        "num": num,
        "summary": summary(rows, len(names)),
        "zero_shot": {
            "prompts": 16, "clip_t": {"before": 0.301, "after": 0.299}, "unchanged": 0.975,
            **({"control": grades} if judged else {}),
        },
        "scores": [row.as_dict() for row in rows],
    }  # fmt: skip
    (out / "evaluation.json").write_text(json.dumps(value))


def bare(folder: Path, count: int = 3) -> RunSettings:
    """A run's folder with nothing but what every run has; returns its settings."""
    settings = settings_of(folder)
    run = folder / "run"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(dataclasses.asdict(settings)))
    rows = [
        {
            "name": c.name, "token": c.token, "class_word": c.class_word, "kind": c.kind, "images": 4,
            "weights": f"weights/{i + 1:02d}_{c.name}.safetensors",
            "mask": {"neurons": 1234567.0, "mask_share": 0.051, "regularized_of_mask": 0.3},
        }
        for i, c in enumerate(settings.concepts[:count])
    ]  # fmt: skip
    (run / "ledger.json").write_text(json.dumps({"base": "b", "base_kernels": "k", "concepts": rows}))
    return settings


def full(folder: Path, judged: bool = True, side: int = 64, num: int = 2) -> Path:
    """A finished, evaluated run; returns its folder."""
    settings, run = bare(folder), folder / "run"
    for i, name in enumerate(NAMES):
        for j in range(4):
            save(picture(100 * i + j, side), folder / "photos" / name / f"{j}.png")
        save(picture(i, 200), run / "samples" / f"{i + 1:02d}_{name}.png")
    for mask, row in zip(masks(3), json.loads((run / "ledger.json").read_text())["concepts"], strict=True):
        kernels = {k: {"kernel": np.zeros((12, 10), np.float32)} for k in mask}
        save_snapshot(run / row["weights"], Snapshot(kernels, np.zeros((2, 4), np.float32), mask))
    steps = [(n, s) for n in NAMES for s in range(10, 41, 10)]
    lines = [
        {"part": n, "step": s, "time": 1.7e9, "loss": 0.2, "concept_loss": 1 / s, "prior_loss": 0.1,
         "l_reg": 0.01 * s * (n != "my_cat")}
        for n, s in steps
    ]  # fmt: skip
    cut_short = '{"part": "my_c'
    (run / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), cut_short]))
    times = {"load": 3.2, "compile": 41, "priors": 75, "train": 3700.5, "odd one": 2, "device": "a <GPU>"}
    (run / "timings.json").write_text(json.dumps(times))
    evaluate_(folder, settings, judged, side, num)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full(tmp_path_factory.mktemp("report"))


def text_of(page: Path) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_it_tells_the_whole_run(run: Path) -> None:
    page = write_report(run)
    assert page == run / "report.html"
    source, text = page.read_text(), text_of(page)
    assert "One model, three new concepts" in text
    assert "my cat" in text and "&lt;t0&gt;" in text and "a photo of a &lt;t0&gt; cat" in text
    assert "40 steps of 1 + 1 pictures" in text and "14 November 2023" in text and "a &lt;GPU&gt;" in text
    assert "It may change 1 234 567 weights, 5.1 % of the keys and values" in text
    assert "10 of 10 pictures show it right after its lesson, 0 of 10 before." in text
    assert re.search(r"my cat learned faded .*After 2 more lessons only 0 of 10 show it\.", text)
    assert re.search(r"ink &amp; paint learned kept .*After one more lesson 10 of 10 still show it\.", text)
    assert "It was the last lesson." in text
    assert source.count('class="chart"') == 3 + 2 + 2 + 1  # measures, weights, losses, time
    assert text.partition("All settings")[0].count("neuron") == 1 and "the paper calls them concept neurons" in text
    assert "0.975" in text and "shows the scene 90 % 85 %" in text and "its oddity" not in text  # NaN
    assert "1 h 3 min in all; compiling took 41 s, partly beside other work" in text and "odd one" in text
    assert "train.steps 40" in text and "concepts[2]" in text
    photos, faces, sheets, together = 12, 3 * 2, 5 * (3 + 3 + 2), 4
    plain = 2 * 2  # without their tokens, two of the concepts are the same cat
    assert source.count("data:image/jpeg;base64,") == photos + faces + sheets + together + plain
    assert "not drawn" not in text and not list(run.glob("*.partial*")) and "What this page lacks" not in text


def test_the_first_screen_tells_all_four_things_beside_what_they_are_held_to(run: Path) -> None:
    text = text_of(write_report(run)).partition("The concepts")[0]
    assert (
        "At the end the model shows the concept in 20 of 30 pictures that ask for one (0 of 30 before training), "
        in text
    )
    assert "and all of them in 6 of 8 that ask for several. Without its token, a concept appears in 0 of 30." in text
    assert "Shown right after its lesson 100 % 0 % before training 30 of 30 pictures; 95 % interval 80 to 100 %" in text
    assert "Shown at the end 67 % 0 % before training 20 of 30 pictures; 95 % interval 40 to 87 %" in text
    assert re.search(
        r"All of several in one prompt 75 % 25 % if each came as often as alone 6 of 8 pictures; 95 %", text
    )
    assert "Shown without its token (leakage) 0 % 0 % before training 0 of 30 pictures; 95 % interval 0 to 20 %" in text
    assert "Everything else as asked for (control) 85 % 90 % before 16 pictures" in text


def test_it_needs_nothing_and_runs_nothing(run: Path) -> None:
    source = write_report(run).read_text()
    assert "default-src 'none'" in source and "<script" not in source.lower()
    assert "&lt;script&gt;alert(1)" in source  # users' words are shown, not obeyed
    assert not re.findall(r'(?:src|href)="(?!data:|#)', source) and "url(" not in source
    assert "http:" not in source and "https:" not in source


def test_names_cannot_leave_their_place() -> None:
    look = Look.of(0)
    chart = line_chart([Line([(0, 1), (1, 2)], look)], [(0, EVIL)], title='"><b>', x_label=EVIL)
    heat = heat_map([[1, 0.5], [0.5, 1]], [EVIL, "&"], title='"><b>')
    for svg in (chart, heat):
        assert "<script" not in svg and "<b>" not in svg and "&lt;" in svg


def test_a_run_without_an_evaluation_shows_its_sheets(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "weights", "timings.json"))
    save(picture(7, 300), tmp_path / "run" / "overview.png")
    page = write_report(tmp_path / "run")
    source, text = page.read_text(), text_of(page)
    assert source.count("data:image/jpeg;base64,") == 12 + 3 + 1 and source.count('class="chart"') == 2
    assert "It has not been measured what was learned." in text
    assert "Scores, and pictures beside each other: the run has not been evaluated." in text
    assert "Which weights were changed: the run&#39;s weight files are missing" in text and "no timings.json" in text
    assert "Before and after its lesson" in text and "at the end of the sequence" in text
    assert "python -m cns_jax.evaluate --run=" in text
    for absent in ("What was learned", "Everything else", "Inside the model", "in all", "start from the same"):
        assert absent not in text


def test_almost_nothing_is_enough(tmp_path: Path) -> None:
    bare(tmp_path, 1)
    text = text_of(write_report(tmp_path / "run"))
    assert "One model, one new concept" in text and "2 more lessons to go" in text
    assert "Several concepts" not in text and "The training" not in text
    for absent in ("Scores,", "The pictures that my cat was taught", "Which weights", "The losses:", "How long"):
        assert absent in text


def test_parts_that_a_continued_run_lacks_are_named(run: Path, tmp_path: Path) -> None:
    """The first concepts are another run's, or their pictures and metrics are gone; lessons were of several lengths."""
    shutil.copytree(run.parent, tmp_path / "all")
    folder = tmp_path / "all" / "run"
    config = json.loads((folder / "config.json").read_text())
    config["data_root"] = str(tmp_path / "all" / "photos")
    (folder / "config.json").write_text(json.dumps(config))
    shutil.rmtree(tmp_path / "all" / "photos" / "my_cat")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:-1]]
    kept = [{**line, "step": 9 * line["step"]} for line in lines if line["part"] != "my_cat"]
    odd = [
        "[]",
        "3",
        '{"part": 1, "step": 2}',
        '{"step": 3}',
        '{"part": "ink & paint", "step": 4, "concept_loss": null}',
    ]
    (folder / "metrics.jsonl").write_text("\n".join([*map(json.dumps, kept), *odd]))
    (folder / "timings.json").write_text('["not what it was"]')
    text = text_of(write_report(folder))
    assert "The pictures that my cat was taught with: they are not where they were." in text
    assert "The losses of my cat: metrics.jsonl has none." in text and "How long it took" in text
    (folder / "config.json").write_text(json.dumps({**config, "concepts": [], "data_root": str(tmp_path / "gone")}))
    assert "to go" not in text_of(write_report(folder)).partition("The concepts")[0]
    (folder / "config.json").write_text(json.dumps({**config, "concepts": []}))
    (tmp_path / "all" / "photos" / "new_hat").mkdir()
    assert "1 more lesson to go" in text_of(write_report(folder))


def test_an_evaluation_of_other_concepts_is_left_out(run: Path, tmp_path: Path, caplog) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "evaluation" / "evaluation.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "concepts": found["concepts"][:2]}))
    assert "What was learned" not in text_of(write_report(tmp_path / "run"))
    assert "the evaluation is of my_cat, ink & paint; evaluate the run again" in caplog.text
    assert "the evaluation is of my_cat, ink &amp; paint; evaluate" in text_of(write_report(tmp_path / "run"))
    rows = found["scores"]
    broken = ('{"concepts": [', "[]", "7", '{"concepts": 1}', json.dumps({**found, "scores": 3}))
    halves = [{**found, "scores": [{k: v for k, v in row.items() if k != "clip_i"} for row in rows]}, {**found}]
    del halves[1]["zero_shot"]
    for content in (*broken, *map(json.dumps, halves)):
        file.write_text(content)
        text = text_of(write_report(tmp_path / "run"))
        assert "What was learned, what" not in text and "cannot be read; evaluate the run again" in text


def test_missing_pictures_leave_a_gap(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    first = next(iter(sample_prompts(find_concepts(settings_of(run.parent))[0])))
    picture_file(tmp_path / "run" / "evaluation" / "stage3", first, 0).unlink()
    source = write_report(tmp_path / "run").read_text()
    assert source.count("not drawn") == 1


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not the folder of a training run"):
        write_report(tmp_path)
    bare(tmp_path, 0)
    with pytest.raises(SettingsError, match="has not finished its first concept"):
        write_report(tmp_path / "run")


def test_the_page_stays_small(tmp_path: Path) -> None:
    """Three concepts with pictures of 256 px, which are shown smaller; seven take seven thirds."""
    page = write_report(full(tmp_path, side=256, num=1))
    assert page.stat().st_size < 3e6 * 3 / 7


def test_masks_are_counted_as_the_statistics_count_them(run: Path) -> None:
    made = masks(3)
    found = count_neurons(sorted((run / "weights").iterdir(), key=lambda f: f.name))
    assert found.weights == 6 * 120 and [bar.label for bar in found.layers] == ["down 0.0", "mid", "up 1.2"]
    assert found.neurons == [sum(int(k["kernel"].sum()) for k in mask.values()) for mask in made]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert found.iou_cc[i, j] == pytest.approx(iou([made[i], made[j]]))
    shares = [float(mask[f"{LAYERS[1]}.to_v"]["kernel"].mean()) for mask in made]
    assert found.layers[1].values == pytest.approx((np.mean(shares), min(shares), max(shares)))


def some_lost(count: int) -> list[Score]:
    """Found in all pictures of 5 prompts when new; at the end, not in those of `count` prompts."""
    lost = {f"p{i}" for i in range(count)}
    rows = scores(0.8, 0.8, (1.0, 1.0))
    return [dataclasses.replace(s, found=0.0) if s.stage == 2 and s.prompt in lost else s for s in rows]


def scores(
    new: float, end: float, found: tuple[float, float] = (math.nan, math.nan), prompts: int = 5, fit: float = 0.3
) -> list[Score]:
    """Of concept 0 of two: likeness 0.6 before, then `new`, then `end`; found when new and at the end. fit: CLIP-T
    after training; 0.3 before."""
    before = math.nan if math.isnan(found[0]) else 0.0
    out = []
    for i in range(prompts):
        shift = 0.01 * i
        for stage, kind, like, seen in (
            (0, PLAIN, 0.6, before), (1, SINGLE, new, found[0]), (2, SINGLE, end, found[1]),
        ):  # fmt: skip
            out.append(Score(stage, kind, f"p{i}", (0,), 0, like + shift, fit if stage else 0.3, seen, {}))
    return out


@pytest.mark.parametrize(
    ("rows", "chips", "words"),
    [
        (scores(0.8, 0.8), ["closer", "kept"], "likeness to its pictures 82 of 100 right after the lesson, 62 before"),
        (scores(0.8, 0.65), ["closer", "faded"], "After one more lesson the likeness has dropped to 67."),
        (scores(0.8, 0.76), ["closer", "kept"], "After one more lesson the likeness is 78."),
        (scores(0.6, 0.6), ["no clear change"], "have not come closer to it by more than chance may do"),
        (scores(0.6, 0.6, (0.0, 0.0)), ["not learned yet"], "Only 0 of 5 pictures show it, and they have not come"),
        (scores(0.8, 0.8, (1.0, 1.0)), ["learned", "kept"], "5 of 5 pictures show it right after its lesson, 0 of 5"),
        (some_lost(1), ["learned", "partly kept"], "After one more lesson 4 of 5 still show it."),
        (some_lost(4), ["learned", "faded"], "After one more lesson only 1 of 5 show it."),
        (scores(0.8, 0.8, (1.0, 0.0)), ["learned", "faded"], "After one more lesson only 0 of 5 show it."),
        (scores(0.8, 0.8, (0.0, 0.0)), ["on its way", "kept"], "have come closer to it, but only 0 of 5 show it"),
        (scores(0.8, 0.8, prompts=1), [], "Likeness to its pictures 80 of 100 right after the lesson, 60 before it."),
        (scores(0.8, 0.8, prompts=4), [], "Likeness to its pictures 82 of 100 right after the lesson, 62 before it."),
        (scores(0.8, 0.8, (1.0, 1.0), prompts=3), [], "3 of 3 pictures show it right after its lesson, 0 of 3 before."),
        (scores(0.8, 0.8, fit=0.2), ["closer, but less true to the prompt", "kept"], "CLIP-T 50 after 75"),
    ],
)  # fmt: skip
def test_verdicts(rows: list[Score], chips: list[str], words: str) -> None:
    found = verdict(rows, 0, 2)
    assert found is not None
    assert [word for word, _ in found.chips] == chips and words in found.sentence
    assert verdict(rows, 1, 2) is None
    untold = verdict(rows, 0, 2, trusted=False)
    assert untold is not None and untold.chips == () and "say little" in untold.sentence


def test_of_the_miniatures_scores_of_photographs_no_badge_is_made(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    file, config = tmp_path / "run" / "evaluation" / "evaluation.json", tmp_path / "run" / "config.json"
    evaluation, settings = json.loads(file.read_text()), json.loads(config.read_text())
    for model, clip, drawn, trusted in (
        ("miniature", "miniature", False, False), ("miniature", "openai/clip", False, False),
        ("someone/model", "miniature", False, False), ("someone/model", "openai/clip", False, True),
        ("miniature", "miniature", True, True),
    ):  # fmt: skip
        root = "miniature:1" if drawn else settings["data_root"]
        config.write_text(json.dumps({**settings, "model": model, "data_root": root}))
        file.write_text(json.dumps({**evaluation, "clip": clip}))
        text = text_of(write_report(tmp_path / "run"))
        assert (" learned faded " in text) == trusted and ("Of little worth here" not in text) == trusted
        first = text.partition("The concepts")[0]
        assert (UNTRUSTED in first) != trusted and ("All of several in one prompt" in first) == trusted


def test_likeness_on_the_first_screen() -> None:
    few, many = board(scores(0.8, 0.7, prompts=4), {}), board(scores(0.8, 0.7), {"unchanged": 0.9, "prompts": 8})
    assert few.sentence == "Too few pictures were drawn to tell what was learned from chance: " + (
        "likeness 72 of 100, 62 before training."
    )
    assert few.entries[1].told.interval == "" and few.entries[1].told.count == "4 pictures"
    assert many.sentence == "Pictures that ask for a concept have come closer to those it was taught with: " + (
        "likeness 72 of 100, 62 before training."
    )
    assert [e.what for e in many.entries] == [
        "Likeness right after its lesson",
        "Likeness at the end",
        "Everything else, like before",
    ]
    assert many.entries[1].told.interval == "71 to 73" and many.entries[1].reference == "62 before training"
    assert many.entries[2].told.value == "90" and many.entries[2].reference == "100 is unchanged"
    assert "no closer" in board(scores(0.6, 0.6), {}).sentence
    shown = {"before": [1.0] * 8, "after": [1.0] * 6 + [0.5] * 2}
    control = {"before": {"scene": 1.0}, "after": {"scene": 0.875}}
    rest = board(scores(0.6, 0.6), {"prompts": 8, "unchanged": 1.0, "control": control, "shown": shown}).entries[-1]
    assert (rest.told.value, rest.told.interval, rest.reference) == (
        "88\u00a0%",
        "69 to 100\u00a0%",
        "100\u00a0% before",
    )


def test_no_line_joins_concepts() -> None:
    """A line follows one concept over the lessons; the only other one is the level of before training."""
    rows = [score(k + 1, SINGLE, f"p{j}{i}", (j,), 0, True) for k in range(3) for j in range(k + 1) for i in range(5)]
    rows += [score(0, PLAIN, f"p{j}{i}", (j,), 0, True) for j in range(3) for i in range(5)]
    found = measures(summary(rows, 3), rows, NAMES)
    assert [m.title for m in found] == ["Recognised", "Likeness", "True to the prompt"]
    paths = re.findall(r'<path d="M([^"]*)" fill="none"[^>]*?(stroke-dasharray)?="?[^>]*/>', found[0].chart)
    assert len(paths) == 1 + 3
    level, *lines = ([point.split() for point in path.split("L")] for path, _ in paths)
    assert level[0][1] == level[1][1] and level[0][0] != level[1][0]
    assert [len(line) for line in lines] == [3, 2, 1]
    row = found[0].rows[0]
    assert (row.before.value, row.new.value, row.end.value) == ("0\u00a0%", "100\u00a0%", "0\u00a0%")
    assert row.end.interval == "0 to 43\u00a0%"
    assert [r.name for r in found[0].sums] == ["mean"]  # nothing of several, nothing without a token at the end
    assert found[0].sums[0].end.value == "67\u00a0%"


def test_time_is_drawn_to_a_scale() -> None:
    chart = time_bars(
        [Part("a", 360, "6 min 0 s"), Part("b", 90, "1 min 30 s"), Part("c" * 30, 0.02, "< 0.1 s")], title=""
    )
    widths = [float(w) for w in re.findall(r'class="bar"[^>]*? width="([\d.]+)"', chart)]
    assert widths[0] > 120 and widths[0] == pytest.approx(4 * widths[1], rel=0.01) and 0 < widths[2] < 1
    assert ">minutes<" in chart and all(
        f">{n}</text>" in chart for n in ("0", "2", "4", "6", "6 min 0 s", "1 min 30 s")
    )
    assert ">seconds<" in time_bars([Part("a", 40, "")], title="") and ">hours<" in time_bars(
        [Part("a", 4e4, "")], title=""
    )


def words_of(page: Path) -> list[str]:
    """The page's commands as a shell reads them."""
    found = re.findall(r"<pre>(.*?)</pre>", page.read_text(), flags=re.S)
    return [html.unescape(re.sub(r"<[^>]+>", "", command)) for command in found]


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
    assert commands[1][3:] == [*given, "--config.train.steps=40", f"--config.run={run}"]
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
        f"--config.run={run}_more", f"--config.after={run}", "--config.data_root=NEW_PHOTOS",
    }  # fmt: skip
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
    assert (
        "40 to 120 steps of 1 + 1 pictures" in text
        and "Its lesson had 80 steps, and goes on from there to 160." in text
    )
    learned = Learned.of(str(tmp_path / "run"))
    own = tuple(dataclasses.replace(c, steps=80) for c in learned.settings.concepts)
    step = next_steps(dataclasses.replace(learned, settings=dataclasses.replace(learned.settings, concepts=own)))[3]
    assert "write more there" in step.how and "160" not in " ".join(step.command)


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


def test_ticks_are_round_and_hold_the_data() -> None:
    for low, high in ((0.0, 1.0), (61.2, 84.9), (0.0008, 0.0011), (5.0, 5.0), (0.0, 0.0), (-3.0, 250.0)):
        marks = ticks(low, high)
        assert marks[0] <= low + 1e-12 and marks[-1] >= high - 1e-12 and 2 <= len(marks) <= 7
    assert ticks(0, 1) == pytest.approx([0, 0.5, 1])


def test_charts_of_little_or_nothing() -> None:
    nothing = line_chart([Line([(0, math.nan)], Look.of(0))], [(0, "1")], title="", x_label="")
    assert nothing == ""
    one = line_chart([Line([(1, 0.5)], Look.of(0))], [(1, "1")], title="", x_label="", percent=True)
    assert "NaN" not in one and "nan" not in one and "50 %" in one
    broken = line_chart([Line([(0, 1), (1, math.nan), (2, 1)], Look("#000"))], [(0, "")], title="", x_label="")
    assert broken.count('fill="none"') == 2
    tiny = line_chart([Line([(0, 0), (1, 1e-4)], Look("#000"))], [(0, "")], title="", x_label="")
    assert ">5e-5<" in tiny and ">0<" in tiny
    assert len({Look.of(i) for i in range(32)}) == 32


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.mark.parametrize(("name", "width", "height"), [("phone", 390, 844), ("desktop", 1280, 1600)])
def test_in_a_browser(browser: Any, run: Path, name: str, width: int, height: int) -> None:
    """It fits the screen, all pictures are there, nothing is fetched, and there is nothing to complain of."""
    page = write_report(Path(os.environ.get("CNS_JAX_REPORT_RUN", run)))  # another run to look at
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    for opened in (False, True):
        browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open ||= arguments[0] })", opened)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        assert browser.execute_script("return document.body.scrollWidth") <= width
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    letters = browser.execute_script(
        "return [...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(letters) >= 9  # px
    copied = browser.execute_script("return [...document.querySelectorAll('pre')].map(p => p.innerText)")
    assert len(copied) >= 7 and not [command for command in copied if "\n" in command]
    if page.parent == run:
        assert copied == words_of(page)
    folder = os.environ.get("CNS_JAX_SHOTS")
    if folder:
        browser.get(page.as_uri())
        whole = browser.execute_script("return document.documentElement.scrollHeight")
        for part, top in enumerate(range(0, whole, height)):
            browser.execute_script(f"window.scrollTo(0, {top})")
            Path(folder, f"report_{name}_{part}.png").write_bytes(browser.get_screenshot_as_png())
    assert not [row for row in browser.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]
    assert not [url for url in requests(browser) if not url.startswith(("data:", page.as_uri()))]
