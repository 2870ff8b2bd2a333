"""Pictures of a protected run: every concept right after its lesson and after all of them, of equal noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.paper.entries import Figure
from benchmarks.protection.experiments import main_experiments
from cns_jax.data.prompts import asked, sample_prompts
from cns_jax.engine.draw.kept import picture_file, seeds_of
from cns_jax.engine.draw.sheets import Row, sheet
from cns_jax.engine.runs.concepts import taught_concepts
from cns_jax.engine.runs.learned import Learned

SETS = (1, 2, 3)


def draw_kept(root: Path, folder: Path, seed: int = 0) -> None:
    """Write a sheet a set into `folder`, of the runs of one seed under `root`; none for a set whose run is not there:
    lines are kept, runs' folders need not be."""
    for place, experiment in zip(SETS, main_experiments(SETS, [seed]), strict=True):
        run = root / experiment.name
        if not (run / "evaluation" / "evaluation.json").exists():
            continue
        concepts = taught_concepts(Learned.of(str(run)))
        prompts = [asked(sample_prompts(concept)[0], [concept]) for concept in concepts]
        stages = {"its lesson": range(1, len(concepts) + 1), "all seven": [len(concepts)] * len(concepts)}
        rows = []
        for title, of_each in stages.items():
            pictures = []
            for prompt, stage in zip(prompts, of_each, strict=True):
                (noise,) = seeds_of(prompt.plain, seed, 1)
                file = picture_file(run / "evaluation" / f"stage{stage}", prompt.text, noise)
                pictures.append(np.asarray(Image.open(file)))
            rows.append(Row(title, pictures))
        sheet(rows, [concept.name for concept in concepts], folder / f"kept_{place}.jpg")


def kept(folder: Path) -> Iterator[Figure]:
    """The sheets that are in `folder`."""
    for place in SETS:
        file = folder / f"kept_{place}.jpg"
        if file.exists():
            reading = (
                f"Set {place}, seed 0: each concept right after its own lesson, and below it, of the same noise, after "
                "all seven lessons."
            )
            yield Figure("pictures", f"kept {place}", file, reading, {})
