"""Prior images: what the frozen base model makes of a concept's class, generated once and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cns_jax.core.files import replacing
from cns_jax.engine.settings import PriorSettings
from cns_jax.engine.studio import Studio


def prior_file(
    model_id: str, compute: str, prompt: str, resolution: int, settings: PriorSettings, seed: int, directory: Path
) -> Path:
    """Where the latents are kept: under a key of everything that they depend on. compute: the dtype's name."""
    parts = (model_id, compute, prompt, resolution, settings.images, settings.sample, seed)
    return directory / (hashlib.sha256(repr(parts).encode()).hexdigest()[:24] + ".safetensors")


def prior_latents(studio: Studio, prompt: str, settings: PriorSettings, seed: int, directory: Path) -> np.ndarray:
    """Scaled latents (n, h, w, c) of settings.images pictures of `prompt` by the base model.

    Kept in `directory`; concepts of one class share them.
    """
    file = prior_file(studio.ids["model"], studio.model.compute, prompt, studio.resolution, settings, seed, directory)
    try:
        return load_file(file)["latents"]
    except (FileNotFoundError, SafetensorError, KeyError):
        rows = jnp.zeros((studio.vocabulary.reserved, studio.model.text_encoder.hidden_size))
        seeds = [seed * settings.images + i for i in range(settings.images)]  # those of two runs share none
        latents = studio.generator.latents(
            studio.params, rows, [prompt] * settings.images, seeds, settings.sample, f"prior images of {prompt!r}"
        )
        with replacing(file) as temporary:
            save_file({"latents": latents}, temporary)
        return latents
