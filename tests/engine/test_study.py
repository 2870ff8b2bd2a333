"""The page of a human study: its prompts and pictures, what it hides, and a whole study in a browser."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, requests
from PIL import Image, ImageDraw
from tiny_runs import call

from cns_jax.core.settings import SettingsError, build
from cns_jax.core.types import SCENE, STYLE, SUBJECT, Concept
from cns_jax.engine.pages import study as module
from cns_jax.engine.pages.study import (
    StudyRequest,
    Target,
    Trial,
    default_prompts,
    find_target,
    study,
    tokens_of,
    write_page,
)
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.settings import RunSettings
from cns_jax.evals.preferences import tally

METHODS = ("cns_run", "lora_run", "finetune_run")
PROMPTS = (
    "a photo of a <tiger_cat> cat on the beach",
    "a photo of a <tiger_cat> cat and a <checked_mug> mug in the snow",
    "</script><script>document.title='broken'</script> a <checked_mug> mug & \"more\"",
)
TOKENS = {"<tiger_cat>": "cat", "<checked_mug>": "mug"}


def picture(seed: int, size: int = 96) -> np.ndarray:
    """A made-up scene: sky, ground and a few balls."""
    rng = np.random.default_rng(seed)
    colors = [tuple(int(c) for c in rng.integers(60, 240, 3)) for _ in range(5)]
    image = Image.new("RGB", (size, size), colors[0])
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, size * 2 // 3, size, size), fill=colors[1])
    for color in colors[2:]:
        x, y, r = rng.integers(0, size, 2).tolist() + [int(rng.integers(8, size // 4))]
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    return np.asarray(image)


def targets(side: int = 96) -> dict[str, Target]:
    images = {t: [Image.fromarray(picture(900 + 10 * i + j, side)) for j in range(4)] for i, t in enumerate(TOKENS)}
    return {token: Target(word, images[token]) for token, word in TOKENS.items()}


def trials(num: int = 1, side: int = 96) -> list[Trial]:
    wanted = [(p, s) for p in PROMPTS for s in range(num)]
    return [
        Trial(p, s, {m: picture(100 * i + j, side) for j, m in enumerate(METHODS)}) for i, (p, s) in enumerate(wanted)
    ]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return write_page(tmp_path / "study", trials(), targets(), rng=random.Random(0))


def key_of(page: Path) -> dict[str, Any]:
    return json.loads(page.with_name("key.json").read_text())


def data_of(page: Path) -> dict[str, Any]:
    return json.loads(re.findall(r'<script type="application/json" id="study">(.*?)</script>', page.read_text())[0])


def test_the_page_is_blind(page: Path) -> None:
    """Neither names nor the order of the methods can be read from the page."""
    text, key, data = page.read_text(), key_of(page), data_of(page)
    assert not [m for m in METHODS if m in text] and str(page.parent) not in text
    assert [t["id"] for t in data["trials"]] == list(key["trials"])
    places: Counter[tuple[int, str]] = Counter()
    many = write_page(page.parent / "many", trials(20), targets(), rng=random.Random(1))
    for row in data_of(many)["trials"]:
        found = key_of(many)["trials"][row["id"]]["pictures"]
        assert set(found) == set(row["pictures"]) and sorted(found.values()) == sorted(METHODS)
        places.update(enumerate(found[i] for i in row["pictures"]))
    assert min(places[i, m] for i in range(3) for m in METHODS) > 8  # 20 of 60 by chance


def test_ids_cannot_be_drawn_again(page: Path) -> None:
    one, other = (write_page(page.parent / name, trials(), targets()) for name in "ab")
    ids = [{i for t in key_of(p)["trials"].values() for i in t["pictures"]} for p in (one, other)]
    assert len(ids[0]) == len(ids[1]) == 9 and not ids[0] & ids[1]
    assert key_of(one)["study"] != key_of(other)["study"]


def test_the_page_needs_nothing_from_outside(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text and "https:" not in text and "http:" not in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text) and not list(page.parent.glob("*.j*pg"))


def test_a_prompt_cannot_leave_its_place(page: Path) -> None:
    assert "<script>document.title" not in page.read_text()
    assert [row["prompt"] for row in data_of(page)["trials"]] == list(PROMPTS)


def test_pictures_are_scaled_down_and_a_large_page_is_said(tmp_path: Path, caplog, monkeypatch) -> None:
    small = write_page(tmp_path / "small", trials(side=200), targets(), side=64).stat().st_size
    assert not caplog.text
    monkeypatch.setattr(module, "MAIL_LIMIT", 30e3)
    large = write_page(tmp_path / "large", trials(side=200), targets()).stat().st_size
    assert large > small + 10_000 and "too much for most mail servers" in caplog.text


def concept(name: str, kind: str = SUBJECT) -> Concept:
    return Concept(name, f"<{name}>", name.split("_")[-1], kind, (), ())


def test_default_prompts() -> None:
    concepts = [
        concept("my_cat"),
        concept("ink_painting", STYLE),
        *map(concept, ("a_dog", "a_mug")),
        concept("a_city", SCENE),
    ]
    made = default_prompts(concepts)
    named = [tokens_of(p) for p in made]
    assert [len(t) for t in named] == [1] * 5 + [2] * 15 and len(set(made)) == 20
    assert [t[0] for t in named[:5]] == [c.token for c in concepts]
    assert Counter(map(tuple, named[5:])) == {
        ("<my_cat>", "<a_dog>"): 5,
        ("<a_dog>", "<a_mug>"): 5,
        ("<my_cat>", "<a_mug>"): 5,
    }
    assert made[5] == "a photo of a <my_cat> cat and a <a_dog> dog"
    assert len(default_prompts(concepts[:1], 9, 9)) == 5


@pytest.fixture
def runs(trained, tmp_path: Path) -> tuple[str, str]:
    """The finished run twice, by other names."""
    for name in ("one", "two"):
        shutil.copytree(trained["folder"], tmp_path / name, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    return str(tmp_path / "one"), str(tmp_path / "two")


@pytest.fixture
def request_(runs, tmp_path: Path) -> StudyRequest:
    file = tmp_path / "prompts.txt"
    file.write_text("a <tiger_cat> cat\n\na <spotted_dog> dog and a <tiger_cat> cat\na <tiger_cat> cat\n")
    return StudyRequest(runs, str(tmp_path / "study"), prompts_file=str(file), num=2, seed=5)


def shorten(run: str) -> None:
    """Take the run back to its first concept."""
    file = Path(run) / "ledger.json"
    ledger = json.loads(file.read_text())
    file.write_text(json.dumps({**ledger, "concepts": ledger["concepts"][:1]}))


def test_study_of_two_runs(request_: StudyRequest) -> None:
    done = call(
        "study", "--runs", *request_.runs, "--out", request_.out, "--prompts_file", request_.prompts_file,
        "--num", "2", "--seed", "5",
    )  # fmt: skip
    assert done.returncode == 0 and "study.html (0.1 MB): send it to the users" in done.stdout, done.stderr[-2000:]
    page = Path(request_.out) / "study.html"
    key, data = key_of(page), data_of(page)
    asked = [(t["prompt"][:8], t["seed"]) for t in key["trials"].values()]
    assert asked == [("a <tiger", 5), ("a <tiger", 6), ("a <spott", 5), ("a <spott", 6)]
    assert key["methods"] == ["one", "two"] and key["runs"]["two"] == request_.runs[1]
    for row in data["trials"]:  # the same weights and seeds: the same picture
        assert len(set(row["pictures"].values())) == 1 and len(row["pictures"]) == 2
    assert len({url for row in data["trials"] for url in row["pictures"].values()}) == 4
    assert {t: len(v["pictures"]) for t, v in data["targets"].items()} == {"<tiger_cat>": 4, "<spotted_dog>": 4}
    with pytest.raises(SettingsError, match="holds a study, and its key.json is needed"):
        study(request_)


def test_a_run_without_the_concept_is_named(request_: StudyRequest) -> None:
    shorten(request_.runs[1])
    with pytest.raises(SettingsError, match="the run two has not learned <spotted_dog>; it knows <tiger_cat>$"):
        study(request_)


def test_default_prompts_are_of_common_concepts(request_: StudyRequest, monkeypatch) -> None:
    shorten(request_.runs[1])
    monkeypatch.setattr(
        module, "_pictures", lambda learned, wanted, settings: np.zeros((len(wanted), 16, 16, 3), np.uint8)
    )
    key = key_of(study(dataclasses.replace(request_, prompts_file="", num=1)))
    assert {t for row in key["trials"].values() for t in tokens_of(row["prompt"])} == {"<tiger_cat>"}


def test_pictures_elsewhere_lie_in_folders_as_the_settings_call_them(tmp_path: Path) -> None:
    """The run's own copy is called after the concept."""
    values = {"name": "x", "data_root": "gone", "concepts": [{"name": "glass", "folder": "style_glass"}]}
    row = {"name": "glass", "token": "<glass>", "class_word": "painting"}
    learned = Learned(tmp_path / "run", build(RunSettings, values), [row], "", "")
    for folder, seed in ((tmp_path / "run" / "data" / "glass", 1), (tmp_path / "mine" / "style_glass", 2)):
        folder.mkdir(parents=True)
        Image.fromarray(picture(seed)).save(folder / "1.png")
    for root, seed in (("", 1), (str(tmp_path / "mine"), 2)):
        (image,) = find_target("<glass>", [learned], root).images
        assert np.array_equal(np.asarray(image), picture(seed))


def test_requests_that_cannot_work(request_: StudyRequest, tmp_path: Path) -> None:
    change = dataclasses.replace
    with pytest.raises(SettingsError, match="compares two runs or more; --runs names 1"):
        change(request_, runs=request_.runs[:1])
    with pytest.raises(SettingsError, match="names a run twice"):
        study(change(request_, runs=(request_.runs[0],) * 2))
    with pytest.raises(SettingsError, match="is not the folder of a training run"):
        study(change(request_, runs=(request_.runs[0], str(tmp_path))))
    with pytest.raises(SettingsError, match="num=0 must be at least 1"):
        change(request_, num=0)
    with pytest.raises(SettingsError, match="(?s)--data_root.*elsewhere/tiger_cat does not exist"):
        study(change(request_, data_root=str(tmp_path / "elsewhere")))
    (tmp_path / "plain.txt").write_text("a cat")
    with pytest.raises(SettingsError, match="'a cat' names no concept"):
        study(change(request_, prompts_file=str(tmp_path / "plain.txt")))
    assert not Path(request_.out).exists()


def test_command_line(page: Path) -> None:
    """In processes of their own: flags are global, and other tests import other commands."""
    done = call("study", "--runs", "no/such", "run", "--out", str(page.parent / "x"))
    said = "error: no/such is not the folder of a training run (no config.json in it)\n"
    assert (done.returncode, done.stderr) == (1, said)
    done = call("study", "tally", "no.json", "--key", str(page.with_name("key.json")))
    assert done.returncode == 1 and done.stderr.startswith("error: there is no file no.json")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path) as driver:
        yield driver


def shoot(browser: Any, name: str) -> None:
    """A screenshot, where the environment names a folder for them."""
    folder = os.environ.get("CNS_JAX_SHOTS")
    if folder:
        Path(folder, f"study_{name}.png").write_bytes(browser.get_screenshot_as_png())


def resize(browser: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def find(browser: Any, css: str) -> list[Any]:
    return browser.find_elements("css selector", css)


def position(browser: Any) -> str:
    return wait(lambda: find(browser, ".count"))[0].text


def kind(browser: Any) -> str:
    return "image" if find(browser, ".targets") else "text"


def order(browser: Any) -> list[str]:
    return [i.get_attribute("value") for i in find(browser, ".choice input")]


def wait(holds: Callable[[], Any]) -> Any:
    """Waits for what a busy browser does late."""
    for _ in range(200):
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen within 10 s")


def test_a_whole_study_in_a_browser(browser, page: Path, tmp_path: Path) -> None:
    """Clicks and keys through it, with a reload on the way; the saved file is tallied. The user prefers cns_run by its
    likeness and lora_run by the text."""
    from selenium.webdriver.common.action_chains import ActionChains

    methods = {i: m for t in key_of(page)["trials"].values() for i, m in t["pictures"].items()}
    wanted = {"image": "cns_run", "text": "lora_run"}
    press = lambda key: ActionChains(browser).send_keys(key).perform()  # noqa: E731
    browser.get(page.as_uri())
    shoot(browser, "welcome")
    find(browser, "#start")[0].click()
    seen: dict[str, list[str]] = {}
    for number in range(1, 7):
        assert position(browser) == f"Question {number} of 6"
        assert not find(browser, "#next")[0].is_enabled()
        ids, question = order(browser), kind(browser)
        seen[f"{number} {question}"] = ids
        choice = next(i for i, name in enumerate(ids) if methods[name] == wanted[question])
        if number % 2:
            find(browser, ".choice")[choice].click()
        else:
            press(str(choice + 1))
        assert find(browser, "#next")[0].is_enabled()
        if number == 3:
            shown = find(browser, ".prompt")[0].text
            browser.refresh()
            assert position(browser) == "Question 3 of 6" and order(browser) == ids
            assert find(browser, ".prompt")[0].text == shown
            assert find(browser, ".choice input:checked")[0].get_attribute("value") == ids[choice]
            find(browser, "#back")[0].click()
            assert position(browser) == "Question 2 of 6" and len(find(browser, ".choice input:checked")) == 1
            press("\ue007")  # Enter
            assert position(browser) == "Question 3 of 6"
        if number % 2:
            find(browser, "#next")[0].click()
        else:
            press("\ue007")
    assert find(browser, "h1")[0].text == "Thank you" and browser.title == "Picture study"
    shoot(browser, "thanks")
    find(browser, "#save")[0].click()
    saved = wait(lambda: list((tmp_path / "saved").glob("*.json")))[0]
    answers = json.loads(saved.read_text())
    assert answers["seed"] == int(answers["participant"][:8], 16) and len(answers["answers"]) == 6
    assert [a["order"] for a in answers["answers"]] == list(seen.values())
    text = tally([str(saved)], str(page.with_name("key.json")))
    assert re.search(r"^cns_run +100.0 % .* 0.0 %", text, re.M) and re.search(r"^lora_run +0.0 % .*100.0 %", text, re.M)
    errors = [row for row in browser.get_log("browser") if row["level"] in ("SEVERE", "WARNING")]
    assert not errors
    urls = requests(browser)
    assert page.as_uri() in urls and not [u for u in urls if not u.startswith(("data:", "blob:", page.as_uri()))]


def test_every_user_has_an_order_of_his_own(browser, page: Path) -> None:
    browser.get(page.as_uri())
    orders = set()
    for _ in range(4):
        browser.execute_script("localStorage.clear()")
        browser.refresh()
        orders.add(browser.execute_script("return JSON.stringify(questions.map(q => [q.id, q.order]))"))
    assert len(orders) == 4
    first = browser.execute_script(
        "return Array.from({length: 3000}, (_, i) => shuffled(['a', 'b', 'c'], `${i} t0 text`).join(''))"
    )
    counts = Counter(first)
    assert len(counts) == 6 and all(abs(n - 500) < 100 for n in counts.values())  # 4.9 standard deviations


@pytest.mark.parametrize(("name", "width", "height"), [("phone", 390, 844), ("desktop", 1280, 800)])
def test_it_fits_the_screen(browser, page: Path, name: str, width: int, height: int) -> None:
    resize(browser, width, height)
    browser.get(page.as_uri())
    find(browser, "#start")[0].click()
    for _ in range(6):
        inside = browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert inside, "the page scrolls sideways"
        sizes = [e.rect for e in find(browser, ".choice, footer button")]
        assert min(s["height"] for s in sizes) >= 44 and min(s["width"] for s in sizes) >= 44  # fingers
        assert find(browser, "#next")[0].is_displayed()
        find(browser, ".choice")[1].click()
        if kind(browser) == "image" and "checked_mug" in find(browser, ".prompt")[0].text:
            shoot(browser, name)
        find(browser, "#next")[0].click()
    assert find(browser, "h1")[0].text == "Thank you"
