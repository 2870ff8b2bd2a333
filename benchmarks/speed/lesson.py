"""Our side of benchmarks.speed.concept: python -m benchmarks.speed.lesson JOB.json prints seconds and memory (JSON)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.speed.worker import peak_bytes
from cns_jax.core.settings import build
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.start import start
from cns_jax.engine.teach.sequence import run


def teach(job: Path) -> dict[str, float]:
    """The run that the job describes; its timings, and the most memory it held."""
    start()
    folder = run(build(RunSettings, json.loads(job.read_text())["settings"]))
    timings = json.loads((folder / "timings.json").read_text())
    seconds = {part: seconds for part, seconds in timings.items() if isinstance(seconds, float)}
    return seconds | {"GB": round(peak_bytes("cns_jax") / 1e9, 2)}


if __name__ == "__main__":
    print(json.dumps(teach(Path(sys.argv[1]))))
