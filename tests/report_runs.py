"""Made-up run folders for the tests of reports, and what a reader sees of a page."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cns_jax.engine.draw.kept import picture_file
from cns_jax.engine.measure.evaluation import Wanted, plan
from cns_jax.engine.runs.concepts import find_concepts
from cns_jax.engine.settings import ConceptSettings, RunSettings, TrainSettings
from cns_jax.evals.scores import PLAIN, Score, summary
from cns_jax.methods.cns import Memory
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
        save_snapshot(run / row["weights"], Snapshot(Memory(mask, kernels, np.zeros((2, 4), np.float32)), mask))
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


def text_of(page: Path) -> str:
    """What a reader sees, in one line."""
    body = re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def words_of(page: Path) -> list[str]:
    """The page's commands as a shell reads them."""
    found = re.findall(r"<pre>(.*?)</pre>", page.read_text(), flags=re.S)
    return [html.unescape(re.sub(r"<[^>]+>", "", command)) for command in found]
