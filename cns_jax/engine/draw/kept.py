"""Pictures that evaluations draw: kept as files, so that what is there is not drawn again."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cns_jax.core.files import name_of, replacing
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.settings import SampleSettings

Draw = Callable[[list[str], list[int]], np.ndarray]


def picture_file(folder: Path, prompt: str, seed: int) -> Path:
    """Where a prompt's picture is kept: a name that tells the prompt and is its alone."""
    words = re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:40]
    return folder / f"{words}_{zlib.crc32(prompt.encode()):08x}_{seed}.png"


def forget_pictures(directory: Path, index: int) -> None:
    """Delete what an evaluation in a run's folder has drawn and told of the weights after concept `index` and later
    ones, which are about to be others."""
    folder = directory / "evaluation"
    for stage in folder.glob("stage*"):
        if stage.name.removeprefix("stage").isdecimal() and int(stage.name.removeprefix("stage")) > index:
            shutil.rmtree(stage)
    (folder / "evaluation.json").unlink(missing_ok=True)


def seeds_of(plain: str, seed: int, count: int) -> list[int]:
    """The seeds of a prompt's pictures, uint32: of its words without tokens, so that all stages, runs and the base
    model share them, and so that no two prompts start from the same noise."""
    return [(zlib.crc32(plain.encode()) + 1_000_003 * seed + i) % 2**32 for i in range(count)]


def kept_pictures(folder: Path, prompts: Sequence[str], seeds: Sequence[int], draw: Draw) -> np.ndarray:
    """uint8 (n, h, w, 3), read back from `folder` or drawn now and written there."""
    files = [picture_file(folder, prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    missing = [i for i, file in enumerate(files) if not file.exists()]
    if missing:
        drawn = draw([prompts[i] for i in missing], [seeds[i] for i in missing])
        for i, image in zip(missing, drawn, strict=True):
            with replacing(files[i]) as temporary:
                Image.fromarray(image).save(temporary)
    return np.stack([np.asarray(Image.open(file)) for file in files])


def base_pictures(stages: Stages, prompts: Sequence[str], seeds: Sequence[int], sample: SampleSettings) -> np.ndarray:
    """The base model's pictures, uint8 (n, h, w, 3), shared by all runs on it."""
    studio = stages.studio
    parts = (studio.ids["model"], studio.model.compute, studio.resolution, sample)
    folder = stages.learned.settings.caches / "base" / name_of(parts)
    return kept_pictures(folder, prompts, seeds, lambda texts, numbers: stages.images(0, texts, numbers, sample))
