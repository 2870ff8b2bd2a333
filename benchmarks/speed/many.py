"""Concept 50 costs what concept 1 costs: python -m benchmarks.speed.many [--concepts=50] [--steps=50]

Teaches one run of the miniature many drawn concepts and keeps what each took: seconds from one snapshot to the next
(without encoding pictures and making prior images, which serve later concepts of the same class), the process's memory,
programs compiled. A line goes to benchmarks/results/many.jsonl, its summary is printed.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.machine import device, provenance
from benchmarks.runs import keep
from cns_jax.core.settings import build
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.start import start
from cns_jax.engine.teach.sequence import TrainingRun
from cns_jax.miniature.concepts import TRAIN_IMAGES, concepts, render_concept
from configs import bench

_CONCEPTS = flags.DEFINE_integer("concepts", 50, "how many", lower_bound=3)
_STEPS = flags.DEFINE_integer("steps", 50, "training steps a concept", lower_bound=10)
_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "folder of the lines")
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Watched(TrainingRun):
    """A run that notes time, memory and compilations whenever a concept is recorded."""

    def __init__(self, settings: RunSettings) -> None:
        super().__init__(settings)
        self.rows: list[dict[str, float]] = []
        self.compiled = 0
        self.begun = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, _: float, **__: object) -> None:
        self.compiled += event == _COMPILED

    def _record(self, index: int, *rest: Any) -> None:
        super()._record(index, *rest)
        at = time.perf_counter() - self.begun - sum(self.timings.seconds[part] for part in ("encode", "priors"))
        self.rows.append({"at": at, "memory": resident_bytes(), "compiled": self.compiled})


def resident_bytes() -> int:
    """What this process holds in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def draw_concepts(root: Path, count: int) -> tuple[dict[str, str], ...]:
    """`count` concepts of the three drawn sets, over and over with new pictures; their settings."""
    drawn = [concept for number in (1, 2, 3) for concept in concepts(number)]
    chosen = []
    for index in range(count):
        concept, turn = drawn[index % len(drawn)], index // len(drawn)
        name = f"c{index:02d}_{concept.name}"
        (root / name).mkdir(parents=True)
        for picture in range(TRAIN_IMAGES):
            image, caption, _ = render_concept(concept, turn * TRAIN_IMAGES + picture, "train")
            Image.fromarray(image).save(root / name / f"{picture}.png")
            (root / name / f"{picture}.txt").write_text(caption)
        chosen.append({"name": name, "class_word": concept.class_word, "kind": concept.kind})
    return tuple(chosen)


def settings_of(count: int, steps: int, root: Path) -> RunSettings:
    """A run of `count` drawn concepts under `root`."""
    values = bench.get_config().to_dict()
    values |= {"name": "many", "data_root": str(root / "data"), "run": str(root / "run"), "reserved_rows": count}
    values["concepts"] = draw_concepts(root / "data", count)
    values["train"] |= {"steps": steps, "save_every": steps, "decay_steps": 0}
    return build(RunSettings, values)


def teach(count: int, steps: int, root: Path) -> list[dict[str, float]]:
    """Train; a row a concept: seconds that choosing and training took, memory in bytes, programs compiled."""
    run = Watched(settings_of(count, steps, root))
    run.run()
    before = [0.0, *(row["at"] for row in run.rows)]
    return [row | {"seconds": row["at"] - b} for row, b in zip(run.rows, before, strict=False)]


def main(_: list[str]) -> None:
    """Flags to a run to a line."""
    start()
    with tempfile.TemporaryDirectory() as folder:
        rows = teach(_CONCEPTS.value, _STEPS.value, Path(folder))
    line = {"workload": "many", "concepts": _CONCEPTS.value, "steps": _STEPS.value, "device": device(),
            **{name: [round(row[name], 3) for row in rows] for name in ("seconds", "memory", "compiled")},
            **provenance()}  # fmt: skip
    keep(Path(_RESULTS.value) / "many.jsonl", line, ("concepts", "steps", "device"))
    print(summary(rows))


def summary(rows: list[dict[str, float]]) -> str:
    """Medians of the first and of the last concepts; the very first, which compiles, is left out."""
    fifth = max(len(rows) // 5, 1)
    early, late = rows[1 : 1 + fifth], rows[-fifth:]
    text = []
    for name, unit, scale in (("seconds", "s", 1.0), ("memory", "GB", 1e-9)):
        first, last = (scale * float(np.median([row[name] for row in part])) for part in (early, late))
        text.append(f"{name}: {first:.3f} {unit} for concepts 2 to {1 + fifth}, {last:.3f} {unit} for the last {fifth}")
    return "\n".join([*text, f"compiled after the first concept: {rows[-1]['compiled'] - rows[0]['compiled']:.0f}"])


if __name__ == "__main__":
    app.run(main)
