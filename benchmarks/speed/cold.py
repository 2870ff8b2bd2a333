"""From the start of a process to its first training step: python -m benchmarks.speed.cold [--rounds=3]

Starts `python -m cns_jax.train --config=configs/mini.py` with nothing kept from before (no compiled programs, no
encoded pictures, no prior images), and again with all of it; both in a folder of their own. A line goes to
benchmarks/results/cold.jsonl.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks.machine import device, provenance
from benchmarks.runs import keep

_ROUNDS = flags.DEFINE_integer("rounds", 3, "first and second starts", lower_bound=1)
_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "folder of the lines")
_LIMIT = 600.0


def main(_: list[str]) -> None:
    """Flags to processes to a line."""
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    for _round in range(_ROUNDS.value):
        with tempfile.TemporaryDirectory() as folder:
            for start in seconds:
                seconds[start].append(round(first_step(Path(folder)), 2))
                print(f"{start} start: {seconds[start][-1]:.1f} s to the first step", flush=True)
    line = {"workload": "cold", "seconds": seconds, "device": device(), **provenance()}
    keep(Path(_RESULTS.value) / "cold.jsonl", line, ("workload", "device"))
    print(", ".join(f"{start} start: median {np.median(some):.1f} s" for start, some in seconds.items()))


def first_step(folder: Path) -> float:
    """Seconds until a new run in `folder` has logged its first step; what earlier runs there have cached is used."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "cns_jax.train", "--config=configs/mini.py", f"--config.run={run}",
               "--config.train.steps_per_call=1"]  # fmt: skip
    log, environment = folder / "log.txt", os.environ | {"XDG_CACHE_HOME": str(folder / "home")}
    begun = time.perf_counter()
    with log.open("w") as told, subprocess.Popen(command, env=environment, stdout=told, stderr=told) as process:
        try:
            while not (metrics := run / "metrics.jsonl").exists() or not metrics.stat().st_size:
                if process.poll() is not None or time.perf_counter() - begun > _LIMIT:
                    raise RuntimeError(f"no step was logged: {log.read_text()[-2000:]}")
                time.sleep(0.01)
            return time.perf_counter() - begun
        finally:
            process.kill()


if __name__ == "__main__":
    app.run(main)
