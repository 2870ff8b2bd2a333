"""cns_jax beside PyTorch: python -m benchmarks.run --suite={mini,sd15-small,sd15} [--only=step,sample] [--rounds=7]

Both sides read the same weights and take turns; a line a workload goes to benchmarks/results/speed.jsonl and the table
of all lines to speed.md. benchmarks/README.md says how to read them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from tqdm import tqdm

from benchmarks.machine import provenance
from benchmarks.runs import keep
from benchmarks.speed_table import KEY, rate, table
from benchmarks.suites import NAMES, SUITES, Suite, model_folder
from benchmarks.worker import SIDES, Worker

log = logging.getLogger(__name__)

_SUITE = flags.DEFINE_enum("suite", "mini", list(SUITES), "which model and sizes")
_ONLY = flags.DEFINE_list("only", list(NAMES), "which workloads")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "timed runs of each side, in turns", lower_bound=1)
_CACHE = flags.DEFINE_string("cache", "runs/benchmarks", "where random Stable Diffusion 1.5 is written (4 GB)")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "folder of the lines and the table")


def main(_: list[str]) -> None:
    """Flags to workers to lines to the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    unknown = set(_ONLY.value) - set(NAMES)
    if unknown:
        raise SystemExit(f"error: unknown workloads {sorted(unknown)}; known: {', '.join(NAMES)}")
    suite = SUITES[_SUITE.value]
    folder = model_folder(suite, Path(_CACHE.value))
    file = Path(_RESULTS.value) / "speed.jsonl"
    ceiling = 0.0
    for name in dict.fromkeys(["matmul", *_ONLY.value]):
        line = compare(name, suite, folder, _ROUNDS.value)
        ceiling = ceiling or max(rate(line, side) for side in SIDES)
        keep(file, line | {"ceiling": ceiling}, KEY)
    file.with_suffix(".md").write_text(table(file))
    print(file.with_suffix(".md").read_text())


def compare(name: str, suite: Suite, folder: Path, rounds: int) -> dict[str, Any]:
    """Time one workload on both sides, in turns whose order changes every round."""
    workers = {side: Worker(side, name, suite, folder) for side in SIDES}
    ours = workers["cns_jax"].about
    devices = {side: worker.about["device"] for side, worker in workers.items()}
    if len(set(devices.values())) > 1:
        told = ", ".join(f"{side} on {device}" for side, device in devices.items())
        raise SystemExit(
            f"error: the sides cannot be compared: {told}; install jax[cuda12], or hide the GPU: CUDA_VISIBLE_DEVICES="
        )
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for index in tqdm(range(rounds), f"{suite.name} {name}", unit="round", leave=False):
        for side in list(SIDES)[:: 1 if index % 2 else -1]:
            seconds[side].append(workers[side].seconds())
    sides = {
        side: {
            "seconds": [round(s, 6) for s in seconds[side]],
            "load": round(worker.about["load"], 3),
            "compile": round(max(worker.about["first"] - ours["per"] * float(np.median(seconds[side])), 0.0), 3),
            "peak_bytes": worker.close(),
        }
        for side, worker in workers.items()
    }
    ratios = [theirs / own for own, theirs in zip(seconds["cns_jax"], seconds["PyTorch"], strict=True)]
    return {
        "suite": suite.name,
        "workload": name,
        "images": ours["images"],
        "flops": ours["flops"],
        "ratio": round(float(np.median(ratios)), 3),
        "ratios": [round(r, 3) for r in ratios],
        "sides": sides,
        "device": ours["device"],
        **provenance("torch", "diffusers"),
    }


if __name__ == "__main__":
    app.run(main)
