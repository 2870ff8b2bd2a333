"""A run's report.html: on a made-up run folder, whole and with parts missing, and in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, requests
from report_runs import (
    bare,
    full,
    picture,
    save,
    settings_of,
    text_of,
    words_of,
)

from cns_jax.core.settings import SettingsError
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.draw.kept import picture_file
from cns_jax.engine.pages.report.page import write_report
from cns_jax.engine.runs.concepts import find_concepts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full(tmp_path_factory.mktemp("report"))


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


def test_how_far_earlier_concepts_have_moved(run: Path, tmp_path: Path) -> None:
    """From the ledger's certificates, with and without an evaluation; of a run whose lessons train every weight there
    is no section on which ones."""
    assert "keys and values moved by" not in text_of(write_report(run))  # of an old version
    folder = Path(shutil.copytree(run.parent, tmp_path / "all")) / "run"
    config, ledger = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "ledger"))

    def moved(name: str, mean: float, worst: float) -> dict[str, Any]:
        return {"name": name, "mean": mean, "worst": worst, "layer": "x.to_k.kernel"}

    first, second, third = ledger["concepts"]
    first["certificate"] = []
    second["certificate"] = [moved("my_cat", 1e-4, 1e-3)]
    third["certificate"] = [moved("<old>", 0, 0), moved("my_cat", 3.14e-4, 1e-3), moved("ink & paint", 0.015, 0.5)]
    for row in ledger["concepts"]:
        row["mask"] = {"neurons": 1234567.0, "mask_share": 1.0}
    (folder / "ledger.json").write_text(json.dumps(ledger))
    (folder / "config.json").write_text(json.dumps({**config, "method": {"name": "protected"}}))
    source = write_report(folder).read_text()
    text = text_of(folder / "report.html")
    for said in (
        "&lt;t0&gt;’s keys and values moved by 0.031 % since its lesson (0.1 % in the worst layer): its pictures "
        "should look the same.",
        "&lt;t1&gt;’s keys and values moved by 1.5 % since its lesson (50 % in the worst layer), enough to see it",
        "&lt;old&gt;’s keys and values moved by less than 0.001 % since this run began",
        "Its lesson may change all 1 234 567 weights of the keys and values",
        "method protected K/V", "what learns all cross-attention K/V weights, and its token&#39;s row",
        "40 steps of 1 picture ",
        "protected prompts of earlier concepts, and general ones",
    ):  # fmt: skip
        assert said in text, (said, text[:3000])
    assert source.count('class="chart"') == 3 + 1 + 2 + 1  # measures, moved, losses, time
    assert "Inside the model" not in text and "Which weights" not in text and "neurons" not in text.split("All sett")[0]
    shutil.rmtree(folder / "evaluation")
    text = text_of(write_report(folder))
    assert "What was learned, what was kept" in text and "keys and values moved by 0.031 %" in text
    assert "How to read the numbers" not in text and "before training, mean" not in text


def test_it_needs_nothing_and_runs_nothing(run: Path) -> None:
    source = write_report(run).read_text()
    assert "default-src 'none'" in source and "<script" not in source.lower()
    assert "&lt;script&gt;alert(1)" in source  # users' words are shown, not obeyed
    assert not re.findall(r'(?:src|href)="(?!data:|#)', source) and "url(" not in source
    assert "http:" not in source and "https:" not in source


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
