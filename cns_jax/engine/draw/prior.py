"""Prior images: what the frozen base model makes of a concept's class and of other prompts, made once and kept."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cns_jax.core.files import kept_array, name_of
from cns_jax.data.views import Size
from cns_jax.engine.draw.generator import Generator
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.settings import PriorSettings, SampleSettings
from cns_jax.neurons.calibration import draw


class Part(NamedTuple):
    """Prior images that are made and kept together. prompts: one an image; seeds: of their noise; size: width and
    height; name: for people."""

    name: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size


def prior_parts(class_prompt: str, pool: Sequence[str], settings: PriorSettings, seed: int, size: Size) -> list[Part]:
    """What the prior images of a concept show: its class, and as many prompts of `pool` as settings.general asks."""
    general = round(settings.general * settings.images)
    own = settings.images - general
    first = seed * settings.images  # the seeds of two runs share none
    seeds = tuple(range(first, first + settings.images))
    others = tuple(itertools.islice(itertools.cycle(draw(pool, general, seed)), general))
    of_class = Part(repr(class_prompt), (class_prompt,) * own, seeds[:own], size)
    return [part for part in (of_class, Part("other prompts", others, seeds[own:], size)) if part.prompts]


def prior_file(model_id: str, compute: str, part: Part, sample: SampleSettings, folder: Path) -> Path:
    """Where the latents are kept: under a key of everything that they depend on. compute: the dtype's name."""
    key = (model_id, compute, part.prompts, part.seeds, part.size, sample)
    return folder / f"{name_of(key)}.safetensors"


def _file(studio: Studio, part: Part, sample: SampleSettings, folder: Path) -> Path:
    return prior_file(studio.ids["model"], studio.model.compute, part, sample, folder)


def _generator(studio: Studio, part: Part) -> Generator:
    width, height = part.size
    return dataclasses.replace(studio.generator, size=(height, width))


def compile_priors(studio: Studio, parts: Sequence[Part], sample: SampleSettings, folder: Path) -> None:
    """Begin to compile what makes prior images of one size, unless these are kept already."""
    wanted = [part for part in parts if not _file(studio, part, sample, folder).exists()]
    if wanted:
        _generator(studio, wanted[0]).ahead(studio.base, sample)


def prior_latents(studio: Studio, part: Part, sample: SampleSettings, folder: Path) -> np.ndarray:
    """Scaled latents (n, h, w, c) of the part's pictures by the base model, kept in `folder` and shared by concepts.

    Raises PictureError if they are not finite, and keeps nothing then; what an earlier version kept so is made again.
    """
    file = _file(studio, part, sample, folder)

    def sampled() -> np.ndarray:
        title = f"prior images of {part.name}"
        return _generator(studio, part).latents(studio.base, part.prompts, part.seeds, sample, title)

    kept = kept_array(file, "latents", sampled)
    if np.isfinite(kept).all():
        return kept
    file.unlink()
    return kept_array(file, "latents", sampled)
