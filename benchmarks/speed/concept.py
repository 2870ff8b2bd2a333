"""One whole concept, from the start of a process to saved weights: python -m benchmarks.speed.concept [--suite=mini]

Both sides learn the same pictures, each time in a process of its own: cold (nothing compiled, no encoded pictures, no
prior images), then warm (all of it kept from before), in turns. A line goes to benchmarks/results/concept.jsonl, the
table to concept.md.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.machine import device, provenance
from benchmarks.runs import keep, read_lines
from benchmarks.speed.suites import SUITES, Suite, model_folder
from cns_jax.core.markdown import table_lines
from cns_jax.core.settings import build
from cns_jax.data.captions import class_prompt, scoring_captions
from cns_jax.engine.runs.concepts import find_concepts
from cns_jax.engine.settings import RunSettings
from cns_jax.evals.neuron_prompts import pool_of
from cns_jax.neurons.calibration import draw
from configs import mini

log = logging.getLogger(__name__)

SIDES = {"cns_jax": "benchmarks.speed.lesson", "PyTorch": "benchmarks.torch_reference.concept"}
STATES = ("cold", "warm")
KEY = ("suite", "steps", "device")

_SUITE = flags.DEFINE_enum("suite", "mini", list(SUITES), "which model and sizes")
_STEPS = flags.DEFINE_integer("steps", 400, "training steps", lower_bound=10)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "cold and warm runs of each side, in turns", lower_bound=1)
_CACHE = flags.DEFINE_string("cache", "runs/benchmarks", "where random Stable Diffusion 1.5 is written (4 GB)")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "folder of the lines and the table")


def main(_: list[str]) -> None:
    """Flags to jobs to processes to a line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    suite = SUITES[_SUITE.value]
    model = model_folder(suite, Path(_CACHE.value)).absolute()
    runs: dict[str, list[dict[str, float]]] = {f"{side} {state}": [] for side in SIDES for state in STATES}
    for index in range(_ROUNDS.value):
        for side in list(SIDES)[:: 1 if index % 2 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                for state in STATES:
                    log.info("round %d of %d: %s, %s", index + 1, _ROUNDS.value, side, state)
                    job = write_job(suite, model, _STEPS.value, Path(folder), state)
                    runs[f"{side} {state}"].append(run(side, job))
    line = {"suite": suite.name, "steps": _STEPS.value, "device": device(), "runs": runs,
            **provenance("torch", "diffusers")}  # fmt: skip
    file = Path(_RESULTS.value) / "concept.jsonl"
    keep(file, line, KEY)
    file.with_suffix(".md").write_text(table(read_lines(file)))
    print(file.with_suffix(".md").read_text())


def settings_of(suite: Suite, model: Path, steps: int, folder: Path, state: str) -> RunSettings:
    """configs/mini.py's first concept at the suite's sizes by the reference's method, without pictures; the state
    names the run's folder."""
    values = mini.get_config().to_dict()
    values |= {"name": "concept", "model": str(model), "resolution": suite.pixels,
               "run": str(folder / state), "concepts": values["concepts"][:1]}  # fmt: skip
    values["method"] |= {"name": "cns", "positions": "all"}  # as the reference's
    values["train"] |= {"batch": suite.batch, "prior_batch": suite.prior_batch, "steps": steps, "save_every": steps,
                        "views": 2, "decay_steps": 0}  # fmt: skip
    values["report"] |= {"sheets": False, "pictures": 0}
    values["prior"] |= {"directory": str(folder / "cache"), "images": 32, "general": 0.0}
    values["prior"]["sample"]["batch"] = max(suite.pictures, 32 // (suite.pixels // 64) ** 2)
    return build(RunSettings, values)


def write_job(suite: Suite, model: Path, steps: int, folder: Path, state: str) -> Path:
    """A file that tells either side what to learn."""
    settings = settings_of(suite, model, steps, folder, state)
    concept = find_concepts(settings)[0]
    method, train = settings.method, settings.train
    assert method.name == "cns"  # the PyTorch side knows no other
    config = json.loads((model / "text_encoder" / "config.json").read_text())
    job = {
        "settings": dataclasses.asdict(settings),
        "model": str(model),
        "tokenizer": str(model / "tokenizer"),
        "width": config["hidden_size"],
        "resolution": suite.pixels,
        "pictures": [str(path.absolute()) for path in concept.image_paths],
        "captions": list(dict.fromkeys(scoring_captions(concept))),
        "calibration": list(draw(pool_of(settings.calibration), method.calibration_prompts, settings.seed)),
        "class_word": concept.class_word,
        "class_prompt": class_prompt(concept),
        "priors": settings.prior.images,
        "prior_steps": settings.prior.sample.steps,
        "batch": suite.batch,
        "prior_batch": suite.prior_batch,
        "steps": steps,
        "rates": {"lr_neurons": method.lr_neurons, "lr_token": method.lr_token, "lambda1": method.lambda1,
                  "lambda2": method.lambda2, "snr_gamma": train.snr_gamma, "adam_epsilon": method.adam_epsilon},
        "out": str(folder),
        "cache": str(folder / "torch"),
    }  # fmt: skip
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    return file


def run(side: str, job: Path) -> dict[str, float]:
    """Seconds of a process's parts, and of all of it ("wall")."""
    environment = os.environ | {"XDG_CACHE_HOME": str(job.parent / "home"),
                                "TORCHINDUCTOR_CACHE_DIR": str(job.parent / "inductor")}  # fmt: skip
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would keep fewer programs than our own folder
    begun = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", SIDES[side], str(job)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    wall = time.perf_counter() - begun
    return {**json.loads(result.stdout.splitlines()[-1]), "wall": round(wall, 3)}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: median seconds of the whole and of its parts."""
    parts = ("wall", "load", "encode", "priors", "select", "train", "save", "compile", "GB")
    rows = []
    for line in lines:
        for name, runs in line["runs"].items():
            ours = line["runs"][f"cns_jax {name.rpartition(' ')[2]}"]
            ratio = np.median([run["wall"] for run in runs]) / np.median([run["wall"] for run in ours])
            seconds = [f"{np.median([run[part] for run in runs]):.1f}" if part in runs[0] else "" for part in parts]
            rows.append([line["suite"], name, f"{ratio:.2f}", *seconds, str(line["steps"]), line["device"]])
    head = ("suite", "side", "ratio of walls", *parts, "steps", "device")
    return "\n".join(table_lines(head, rows)) + "\n"


if __name__ == "__main__":
    app.run(main)
