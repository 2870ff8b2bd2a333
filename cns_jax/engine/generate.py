"""Pictures from a finished or running training run, with the weights of any of its stages."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cns_jax.core.reading import read_text
from cns_jax.core.settings import require
from cns_jax.engine.report.sheets import tile
from cns_jax.engine.settings import SampleSettings
from cns_jax.engine.stages import Stages


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
    stages = Stages.open(request.run, request.after)
    prompts = [p for p in wanted for _ in range(request.num)]
    seeds = [request.seed + i for _ in wanted for i in range(request.num)]
    settings = sampling(request, stages.learned.settings.sample)
    images = stages.images(stages.last, prompts, seeds, settings)
    out = Path(request.out or Path(request.run) / "generated").expanduser()
    out.mkdir(parents=True, exist_ok=True)
    for image, prompt, seed in zip(images, prompts, seeds, strict=True):
        Image.fromarray(image).save(out / f"{_slug(prompt)}_{seed}.png")
    grid = out / f"grid_{_slug(wanted[0])}_{request.seed}.png"
    Image.fromarray(tile(list(images), request.num)).save(grid)
    return grid


def _prompts(request: Request) -> tuple[str, ...]:
    """The prompts given one by one, then those of the file. Raises SettingsError if there are none."""
    listed = read_prompts(request.prompts_file) if request.prompts_file else []
    prompts = (*request.prompts, *listed)
    require(bool(prompts), "no prompt: give --prompt='a photo of ...', or --prompts_file with one prompt a line")
    return prompts


def read_prompts(name: str) -> list[str]:
    """The prompts of a text file, one a line. Raises SettingsError if there is no such file."""
    file = Path(name).expanduser()
    require(file.is_file(), f"prompts_file={name!r}: there is no such file")
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
