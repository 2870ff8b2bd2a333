"""A folder that we write opens in diffusers and gives the same latents for the same noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from errors import assert_parity

from cns_jax.core.mesh import make_mesh
from cns_jax.core.rng import stream
from cns_jax.engine.draw.sampling import sample_latents
from cns_jax.engine.runs.source import miniature_folder
from cns_jax.methods.applied import Applied
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.folder import read_folder

diffusers = pytest.importorskip("diffusers")


# one of each kind of timesteps; test_samplers.py compares every sampler
CASES = [("pndm", False), ("euler", False), ("ddim", True), ("dpm++2m", True)]


@pytest.mark.parametrize(("sampler", "shipped"), CASES)
def test_same_latents_in_diffusers(tiny_folder, sampler: str, shipped: bool) -> None:
    folder = miniature_folder() if shipped else tiny_folder
    pipeline = read_folder(folder).load()
    model = pipeline.model
    # float64: guided steps amplify rounding, and on some machines diffusers' float32 is 1.7e-4 from its own float64
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float64, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    config = pipeline.schedule.to_config(sampler)
    pipe.scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    vocabulary = Vocabulary(load_tokenizer(pipeline.tokenizer))
    # the shipped one at the size it was trained for: at 4 x 4 even diffusers' float32 is 5e-4 from its own float64
    side = (model.unet.sample_size if shipped else 4) * model.vae.downsampling
    prompt, shape = "a photo of a red cat on the beach", model.latent_shape(side, side)
    noise = jax.random.normal(stream(jax.random.key(jnp.uint32(5)), "latents"), shape)
    ours = sample_latents(
        Applied(pipeline.params, jnp.zeros((1, model.text_encoder.hidden_size))),
        jnp.asarray(vocabulary.encode([prompt])),
        jnp.asarray(vocabulary.encode([""])), jnp.asarray([5], jnp.uint32), 5.0,
        model=model, schedule=pipeline.schedule, shape=shape, sampler=sampler, steps=5,
        mesh=make_mesh(devices=jax.devices()[:1]),
    )  # fmt: skip
    theirs = pipe(
        prompt, num_inference_steps=5, guidance_scale=5.0, output_type="latent", height=side, width=side,
        latents=torch.from_numpy(np.array(noise).transpose(2, 0, 1)[None]).double(),
    ).images  # fmt: skip
    assert_parity(
        ours, theirs.numpy().transpose(0, 2, 3, 1), f"{folder.name}, {sampler}, 5 guided steps, diffusers pipeline"
    )
