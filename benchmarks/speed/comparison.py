"""One workload timed on both sides, in processes that take turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.machine import provenance
from benchmarks.speed.free_memory import FreeMemory
from benchmarks.speed.suites import Suite
from benchmarks.speed.worker import SIDES, Worker

_SECONDS = 4.0  # of a pair of processes, at least
_MUCH = 2**28  # bytes written in a run: memory for them decides


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


def start(name: str, suite: Suite, folder: Path) -> dict[str, Worker]:
    """A pair's processes, which build and compile from now on."""
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
