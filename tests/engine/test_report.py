"""A run's report.html: on a made-up run folder, whole and with parts missing, and in a browser."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, requests
from PIL import Image

from cns_jax.core.settings import SettingsError
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.concepts import find_concepts
from cns_jax.engine.drawing import picture_file
from cns_jax.engine.evaluation import Wanted, plan
from cns_jax.engine.report.figures import Line, Look, heat_map, line_chart, ticks
from cns_jax.engine.report.neurons import count_neurons
from cns_jax.engine.report.page import write_report
from cns_jax.engine.report.scores import verdict
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
    html, text = page.read_text(), text_of(page)
    assert "One model, three new concepts" in text
    assert "my cat" in text and "&lt;t0&gt;" in text and "a photo of a &lt;t0&gt; cat" in text
    assert "40 steps of 1 + 1 pictures" in text and "14 November 2023" in text and "a &lt;GPU&gt;" in text
    assert "1 234 567 neurons are 5.1 % of the keys and values" in text
    assert "10 of 10 pictures show it right after its lesson, 0 of 10 before." in text
    assert re.search(r"my cat learned faded .*After 2 more lessons only 0 of 10 show it\.", text)
    assert re.search(r"ink &amp; paint learned kept .*After one more lesson 10 of 10 still show it\.", text)
    assert "It was the last lesson." in text
    assert html.count('class="chart"') == 3 + 2 + 2  # measures, neurons, losses
    assert "0.975" in text and "shows the scene 90 % 85 %" in text and "its oddity" not in text  # NaN
    assert "1 h 3 min in all; compiling took 41 s, partly beside other work" in text and "odd one" in text
    assert "train.steps 40" in text and "concepts[2]" in text
    assert "python -m cns_jax.generate" in text and "cns_jax.evaluate" not in text
    photos, faces, sheets, together = 12, 3, 5 * (3 + 3 + 2), 4
    plain = 2 * 2  # without their tokens, two of the concepts are the same cat
    assert html.count("data:image/jpeg;base64,") == photos + faces + sheets + together + plain
    assert "not drawn" not in text and not list(run.glob("*.partial*"))


def test_it_needs_nothing_and_runs_nothing(run: Path) -> None:
    html = write_report(run).read_text()
    assert "default-src 'none'" in html and "<script" not in html.lower()
    assert "&lt;script&gt;alert(1)" in html  # users' words are shown, not obeyed
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html) and "url(" not in html
    assert "http:" not in html and "https:" not in html


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
    html, text = page.read_text(), text_of(page)
    assert html.count("data:image/jpeg;base64,") == 12 + 3 + 1 and html.count('class="chart"') == 2
    assert "Before and after its lesson" in text and "at the end of the sequence" in text
    assert "python -m cns_jax.evaluate --run=" in text
    for absent in ("What was learned", "Everything else", "Inside the model", "in all", "start from the same"):
        assert absent not in text


def test_almost_nothing_is_enough(tmp_path: Path) -> None:
    bare(tmp_path, 1)
    text = text_of(write_report(tmp_path / "run"))
    assert "One model, one new concept" in text and "2 more lessons to go" in text
    assert "Several concepts" not in text and "The training" not in text


def test_an_evaluation_of_other_concepts_is_left_out(run: Path, tmp_path: Path, caplog) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "evaluation" / "evaluation.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "concepts": found["concepts"][:2]}))
    assert "What was learned" not in text_of(write_report(tmp_path / "run"))
    assert "is of my_cat, ink & paint; evaluate the run again" in caplog.text
    file.write_text('{"concepts": [')
    assert "What was learned" not in text_of(write_report(tmp_path / "run"))


def test_missing_pictures_leave_a_gap(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    first = next(iter(sample_prompts(find_concepts(settings_of(run.parent))[0])))
    picture_file(tmp_path / "run" / "evaluation" / "stage3", first, 0).unlink()
    html = write_report(tmp_path / "run").read_text()
    assert html.count("not drawn") == 1


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


def scores(new: float, end: float, found: tuple[float, float] = (math.nan, math.nan), prompts: int = 5) -> list[Score]:
    """Of concept 0 of two: likeness 0.6 before, then `new`, then `end`; found when new and at the end."""
    before = math.nan if math.isnan(found[0]) else 0.0
    out = []
    for i in range(prompts):
        shift = 0.01 * i
        for stage, kind, like, seen in (
            (0, PLAIN, 0.6, before), (1, SINGLE, new, found[0]), (2, SINGLE, end, found[1]),
        ):  # fmt: skip
            out.append(Score(stage, kind, f"p{i}", (0,), 0, like + shift, 0.3, seen, {}))
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
    ],
)  # fmt: skip
def test_verdicts(rows: list[Score], chips: list[str], words: str) -> None:
    found = verdict(rows, 0, 2)
    assert found is not None
    assert [word for word, _ in found.chips] == chips and words in found.sentence
    assert verdict(rows, 1, 2) is None


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
    folder = os.environ.get("CNS_JAX_SHOTS")
    if folder:
        browser.get(page.as_uri())
        whole = browser.execute_script("return document.documentElement.scrollHeight")
        for part, top in enumerate(range(0, whole, height)):
            browser.execute_script(f"window.scrollTo(0, {top})")
            Path(folder, f"report_{name}_{part}.png").write_bytes(browser.get_screenshot_as_png())
    assert not [row for row in browser.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]
    assert not [url for url in requests(browser) if not url.startswith(("data:", page.as_uri()))]
