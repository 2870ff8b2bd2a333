"""The first concept in pictures: the same prompt and noise after more and more lessons, a row a variant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.paper.entries import Figure
from benchmarks.paper.experiments import main_experiments
from benchmarks.paper.lines import VARIANTS
from cns_jax.data.prompts import asked, sample_prompts
from cns_jax.engine.draw.kept import picture_file, seeds_of
from cns_jax.engine.draw.sheets import Row, sheet
from cns_jax.engine.runs.concepts import taught_concepts
from cns_jax.engine.runs.learned import Learned

STAGES = (1, 2, 4, 7)
"""After how many lessons."""


def draw_first_concepts(root: Path, folder: Path, seed: int = 0) -> None:
    """Write a sheet of each set's first concept into `folder`, of the runs of one seed under `root`; none for a set
    whose runs are not all there: lines are kept, runs' folders need not be."""
    for place in (1, 2, 3):
        runs = [e for e in main_experiments([place], [seed]) if (root / e.name / "evaluation").is_dir()]
        if len(runs) < len(VARIANTS):
            continue
        folders = {VARIANTS[e.variant]: root / e.name for e in runs}
        concept = taught_concepts(Learned.of(str(root / runs[0].name)))[0]
        prompt = asked(sample_prompts(concept)[0], [concept])
        (noise,) = seeds_of(prompt.plain, seed, 1)
        rows = [
            Row(name, [_picture(run / "evaluation" / f"stage{stage}", prompt.text, noise) for stage in STAGES])
            for name, run in folders.items()
        ]
        titles = ["after its lesson", *(f"after {stage} lessons" for stage in STAGES[1:])]
        sheet(rows, titles, folder / f"first_pictures_{place}.jpg")


def _picture(folder: Path, prompt: str, noise: int) -> np.ndarray:
    return np.asarray(Image.open(picture_file(folder, prompt, noise)))


def first_concepts(folder: Path, sets: Sequence[int]) -> Iterator[Figure]:
    """The sheets that are in `folder`."""
    for place in sets:
        file = folder / f"first_pictures_{place}.jpg"
        if file.exists():
            reading = f"Set {place}: the first concept, the same prompt and noise after more and more lessons (seed 0)."
            yield Figure("stages", f"pictures {place}", file, reading, {})
