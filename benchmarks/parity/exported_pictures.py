"""docs/export.jpg: the same prompts and noise in cns_jax and, with the run's export, in PyTorch diffusers.

python -m benchmarks.parity.exported_pictures --run=runs/mini
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from diffusers import DDIMScheduler, StableDiffusionPipeline

from cns_jax.core.rng import stream
from cns_jax.data.prompts import without_tokens
from cns_jax.engine.draw.sheets import Row, sheet
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.settings import SampleSettings
from cns_jax.engine.start import start

_RUN = flags.DEFINE_string("run", "runs/mini", "a finished run")
_OUT = flags.DEFINE_string("out", "docs/export.jpg", "where to write")
_SEED = flags.DEFINE_integer("seed", 60, "of the first prompt's noise; the next prompts take the next seeds")
_PROMPTS = flags.DEFINE_multi_string(
    "prompt",
    [
        "a photo of a <tiger_cat> cat on the beach",
        "a photo of a <spotted_dog> dog on the beach",
        "a photo of a <checked_mug> mug",
        "a photo of a <spotted_dog> dog in the desert",
        "a photo of a <checked_mug> mug on the beach",
    ],
    "a column",
)


def drawn_by_diffusers(
    folder: Path, prompts: Sequence[str], noise_bhwc: np.ndarray, settings: SampleSettings, side: int
) -> np.ndarray:
    """Pictures uint8 (b, h, w, 3) of an exported pipeline, from our noise."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        list(prompts), num_inference_steps=settings.steps, guidance_scale=settings.guidance_scale, height=side,
        width=side, latents=torch.from_numpy(noise_bhwc.transpose(0, 3, 1, 2).copy()), output_type="np",
    ).images  # fmt: skip
    return np.round(images * 255).astype(np.uint8)


def main(_: list[str]) -> None:
    """Draw both and write the sheet."""
    start()
    run, prompts = Stages.open(_RUN.value), _PROMPTS.value
    seeds = list(range(_SEED.value, _SEED.value + len(prompts)))
    settings = dataclasses.replace(run.learned.settings.sample, sampler="ddim", batch=len(prompts))
    side = run.learned.settings.resolution
    ours = run.images(run.last, prompts, seeds, settings)
    shape = run.studio.model.latent_shape(side, side)
    noise = [jax.random.normal(stream(jax.random.key(jnp.uint32(seed)), "latents"), shape) for seed in seeds]
    with TemporaryDirectory() as folder:
        out = export(ExportRequest(_RUN.value, "diffusers", folder + "/export"))[0][0]
        theirs = drawn_by_diffusers(out, prompts, np.stack(noise), settings, side)
    apart = np.abs(ours.astype(int) - theirs)
    print(f"{np.mean(apart > 0):.5%} of the bytes differ, by at most {apart.max()}")
    sheet(
        [Row("cns_jax", list(ours)), Row("diffusers, with the export", list(theirs))],
        [without_tokens(prompt).removeprefix("a photo of ") for prompt in prompts],
        Path(_OUT.value),
        zoom=3,
    )


if __name__ == "__main__":
    app.run(main)
