"""Pictures from a training run with the weights of any of its stages, or from a checkpoint."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from cns_jax import __version__
from cns_jax.core.reading import read_text
from cns_jax.core.rng import SEEDS
from cns_jax.core.settings import require
from cns_jax.engine.draw.naming import Numbered, slug
from cns_jax.engine.draw.opened import open_for
from cns_jax.engine.draw.picture_text import png
from cns_jax.engine.draw.request import Request
from cns_jax.engine.draw.sheets import tile
from cns_jax.text.vocabulary import Vocabulary

log = logging.getLogger(__name__)


def generate(request: Request) -> Path:
    """Write one PNG a picture and a grid (a row a prompt), each of which says how it was made; returns the grid's path.

    Raises SettingsError, WeightsMismatch, TokenError, PromptError or PictureError.
    """
    wanted = _prompts(request)
    opened = open_for(request)
    generator, settings = opened.generator, request.sampling(opened.sample)
    for text in bare_names(generator.vocabulary, wanted):
        log.warning("%s", text)
    prompts = [p for p in wanted for _ in range(request.num)]
    seeds = [(request.seed + i) % SEEDS for _ in wanted for i in range(request.num)]
    images = generator.images(opened.applied, prompts, seeds, settings, request.prompt_syntax)
    files = Numbered(Path(request.out).expanduser() if request.out else opened.out, request.overwrite)
    made = {
        "sampler": generator.sampler_of(settings),
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "negative_prompt": settings.negative_prompt,
        "prompt_syntax": request.prompt_syntax,
        "clip_skip": request.clip_skip,
        "width": generator.size[1],
        "height": generator.size[0],
        **opened.about,
        "version": __version__,
    }
    told = [{"prompt": prompt, "seed": seed, **made} for prompt, seed in zip(prompts, seeds, strict=True)]
    for image, of_it in zip(images, told, strict=True):
        files.write(slug(of_it["prompt"]), png(image, of_it))
    return files.write(f"grid_{slug(wanted[0])}", png(tile(list(images), request.num), told[0]))


def bare_names(vocabulary: Vocabulary, prompts: Sequence[str]) -> list[str]:
    """A line for each concept whose name a prompt holds without < and >, unless the name is an ordinary word."""
    lines = []
    for token in vocabulary.tokens:
        name = token[1:-1]
        ordinary = len(vocabulary.tokenizer.ids(name)) == 1
        found = re.compile(rf"(?<![<\w-]){re.escape(name)}(?![>\w-])", re.I)
        if not ordinary and any(found.search(prompt) for prompt in prompts):
            lines.append(f"{name} without < and > is ordinary letters to the model; the concept is {token}")
    return lines


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
