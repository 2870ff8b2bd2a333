"""Pictures from a finished or running training run, with the weights of any of its stages."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from PIL import Image

from cns_jax.core.settings import require
from cns_jax.core.tree import overlay
from cns_jax.engine.learned import Learned
from cns_jax.engine.report import tile
from cns_jax.engine.settings import RunSettings, SampleSettings
from cns_jax.engine.studio import Studio, find_source
from cns_jax.neurons.score import cross_attention_kernels


@dataclass(frozen=True)
class Request:
    """What the user asks for; empty strings, 0 steps and a negative guidance mean the run's own settings."""

    run: str
    prompts: tuple[str, ...] = ()
    prompts_file: str = ""
    negative_prompt: str = ""
    num: int = 4
    seed: int = 0
    sampler: str = ""
    steps: int = 0
    guidance_scale: float = -1.0
    after: str = ""
    out: str = ""


@dataclass(frozen=True)
class Trained:
    """A run's model after one of its concepts, ready to sample."""

    studio: Studio
    params: Any
    rows_rd: Any
    settings: RunSettings


def open_run(run: str, after: str = "") -> Trained:
    """The model of a run after concept `after` (default: the last). Only its tokens are known to prompts.

    Raises SettingsError if the folder is no run, has learned nothing yet, or does not know the concept.
    """
    learned = Learned.of(run, after)
    settings = learned.settings
    source = find_source(settings.address)
    studio = Studio.open(source, learned.tokens, settings.reserved_rows, settings.resolution, compute=settings.compute)
    snapshot = learned.snapshot(cross_attention_kernels(studio.params["unet"]))
    unet = overlay(studio.params["unet"], snapshot.kernels)
    return Trained(studio, studio.with_unet(unet), jnp.asarray(snapshot.rows_rd), settings)


def sampling(request: Request, settings: SampleSettings) -> SampleSettings:
    """The run's sampling settings with what the request changes."""
    changes: dict[str, Any] = {"negative_prompt": request.negative_prompt or settings.negative_prompt}
    if request.sampler:
        changes["sampler"] = request.sampler
    if request.steps:
        changes["steps"] = request.steps
    if request.guidance_scale >= 0:
        changes["guidance_scale"] = request.guidance_scale
    return dataclasses.replace(settings, **changes)


def generate(request: Request) -> Path:
    """Write one PNG a picture and a grid (a row a prompt); returns the grid's path."""
    wanted = _prompts(request)
    trained = open_run(request.run, request.after)
    prompts = [p for p in wanted for _ in range(request.num)]
    seeds = [request.seed + i for _ in wanted for i in range(request.num)]
    settings = sampling(request, trained.settings.sample)
    images = trained.studio.generator.images(trained.params, trained.rows_rd, prompts, seeds, settings)
    out = Path(request.out or Path(request.run) / "generated").expanduser()
    out.mkdir(parents=True, exist_ok=True)
    for image, prompt, seed in zip(images, prompts, seeds, strict=True):
        Image.fromarray(image).save(out / f"{_slug(prompt)}_{seed}.png")
    grid = out / f"grid_{_slug(wanted[0])}_{request.seed}.png"
    Image.fromarray(tile(list(images), request.num)).save(grid)
    return grid


def _prompts(request: Request) -> tuple[str, ...]:
    """The prompts given one by one, then those of the file. Raises SettingsError if there are none."""
    listed: list[str] = []
    if request.prompts_file:
        file = Path(request.prompts_file)
        require(file.is_file(), f"prompts_file={request.prompts_file!r}: there is no such file")
        listed = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts = (*request.prompts, *listed)
    require(bool(prompts), "no prompt: give --prompt='a photo of ...', or --prompts_file with one prompt a line")
    return prompts


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
