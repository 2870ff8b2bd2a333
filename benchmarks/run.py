"""cns_jax beside PyTorch: python -m benchmarks.run --suite={mini,sd15-small,sd15} [--only=step,sample]
        [--processes=3] [--rounds=3] [--together]

Both sides read the same weights and take turns; a line a workload goes to benchmarks/results/speed.jsonl and the table
of all lines to speed.md. benchmarks/README.md says how to read them.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from tqdm import tqdm

from benchmarks.free_memory import FreeMemory
from benchmarks.machine import provenance
from benchmarks.runs import keep
from benchmarks.speed_table import KEY, rate, table
from benchmarks.suites import NAMES, SUITES, Suite, model_folder
from benchmarks.worker import SIDES, Worker

log = logging.getLogger(__name__)

_SUITE = flags.DEFINE_enum("suite", "mini", list(SUITES), "which model and sizes")
_ONLY = flags.DEFINE_list("only", list(NAMES), "which workloads")
_PROCESSES = flags.DEFINE_integer("processes", 3, "pairs of processes, one after another", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "timed runs of each side in a pair, in turns (at least)", lower_bound=1)
_TOGETHER = flags.DEFINE_bool("together", False, "all start and compile at once: for many cores and much memory")
_CACHE = flags.DEFINE_string("cache", "runs/benchmarks", "where random Stable Diffusion 1.5 is written (4 GB)")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "folder of the lines and the table")
_SECONDS = 4.0  # of a pair of processes, at least
_MUCH = 2**28  # bytes written in a run: memory for them decides


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
    names = list(dict.fromkeys(["matmul", *_ONLY.value]))
    begun = {name: _start(name, suite, folder) for name in names} if _TOGETHER.value else {}
    for name in names:
        line = compare(name, suite, folder, _PROCESSES.value, _ROUNDS.value, begun.pop(name, None))
        ceiling = ceiling or max(rate(line, side) for side in SIDES)
        keep(file, line | {"ceiling": ceiling}, KEY)
    file.with_suffix(".md").write_text(table(file))
    print(file.with_suffix(".md").read_text())


def compare(
    name: str,
    suite: Suite,
    folder: Path,
    processes: int,
    rounds: int,
    begun: dict[str, Worker] | None = None,
) -> dict[str, Any]:
    """Time one workload on both sides, in turns whose order changes every round.

    Each pair of processes has `rounds` rounds and more: a process may be 1.4 times as fast as another, all its life.
    begun: the first pair, where it is starting already.
    """
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    abouts: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    memory = FreeMemory()
    for pair in range(processes):
        workers, begun = begun or _one_by_one(name, suite, folder), None
        _require_one_device({side: worker.about["device"] for side, worker in workers.items()})
        for index in tqdm(_turns(rounds), f"{suite.name} {name}, {pair + 1} of {processes}", unit="round", leave=False):
            for side in list(SIDES)[:: 1 if index % 2 else -1]:
                if workers[side].about["written"] > _MUCH:
                    memory.back()
                seconds[side].append(workers[side].seconds())
        for side, worker in workers.items():
            abouts[side].append(worker.about | {"peak": worker.close()})
    sides = {side: _side(seconds[side], abouts[side]) for side in SIDES}
    ratios = [theirs / own for own, theirs in zip(seconds["cns_jax"], seconds["PyTorch"], strict=True)]
    ours = abouts["cns_jax"][0]
    return {
        "suite": suite.name,
        "workload": name,
        "images": ours["images"],
        "flops": ours["flops"],
        "processes": processes,
        "ratio": round(float(np.median(ratios)), 3),
        "ratios": [round(r, 3) for r in ratios],
        "sides": sides,
        "device": ours["device"],
        **provenance("torch", "diffusers"),
    }


def _start(name: str, suite: Suite, folder: Path) -> dict[str, Worker]:
    return {side: Worker(side, name, suite, folder) for side in SIDES}


def _one_by_one(name: str, suite: Suite, folder: Path) -> dict[str, Worker]:
    """Neither compiles beside the other, which would slow it."""
    workers = {}
    for side in SIDES:
        workers[side] = Worker(side, name, suite, folder)
        workers[side].wait()
    return workers


def _turns(rounds: int) -> Iterator[int]:
    """At least `rounds`, and for some seconds: a machine may be slow for one."""
    begun = time.perf_counter()
    for index in itertools.count():
        if index >= rounds and time.perf_counter() - begun > _SECONDS:
            return
        yield index


def _side(seconds: list[float], abouts: list[dict[str, Any]]) -> dict[str, Any]:
    """What a line holds of one side; of several processes the median."""
    usual = float(np.median(seconds))
    compiling = [max(about["first"] - about["per"] * usual, 0.0) for about in abouts]
    return {
        "seconds": [round(s, 6) for s in seconds],
        "load": round(float(np.median([about["load"] for about in abouts])), 3),
        "compile": round(float(np.median(compiling)), 3),
        "peak_bytes": max(about["peak"] for about in abouts),
    }


def _require_one_device(devices: dict[str, str]) -> None:
    if len(set(devices.values())) > 1:
        told = ", ".join(f"{side} on {device}" for side, device in devices.items())
        raise SystemExit(
            f"error: the sides cannot be compared: {told}; install jax[cuda12], or hide the GPU: CUDA_VISIBLE_DEVICES="
        )


if __name__ == "__main__":
    app.run(main)
