"""The compiled programs that make pictures: from token ids to latents, from latents to pixels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cns_jax.core.mesh import everywhere, over_data, rows_over
from cns_jax.core.rng import keys_of, stream
from cns_jax.core.xla.compiling import jit
from cns_jax.diffusion.guidance import classifier_free
from cns_jax.diffusion.samplers import get_sampler
from cns_jax.diffusion.schedule import Schedule
from cns_jax.methods.applied import Applied
from cns_jax.nn.model import Model


@jit(static_argnames=("model", "schedule", "shape", "sampler", "steps", "mesh"))
def sample_latents(
    applied: Applied,
    ids_bl: jax.Array,
    negative_1l: jax.Array,
    seeds: jax.Array,
    guidance_scale: float | jax.Array,
    *,
    model: Model,
    schedule: Schedule,
    shape: tuple[int, int, int],
    sampler: str,
    steps: int,
    mesh: Mesh,
) -> jax.Array:
    """Scaled latents (b, *shape) of prompts given as token ids. The devices share the images if they divide b.

    seeds: uint32, of `seed_words`.
    """
    with rows_over(mesh):
        ids = jnp.concatenate([ids_bl, negative_1l])
        text = applied.conditioning(applied.encode(model, ids), ids)
        return _denoised(applied, text, seeds, guidance_scale, model, schedule, shape, sampler, steps, mesh)


@jit(static_argnames=("model", "schedule", "shape", "sampler", "steps", "mesh"))
def sample_chunks(
    applied: Applied,
    ids_bkl: jax.Array,
    weights_bkl: jax.Array,
    negative_1kl: jax.Array,
    negative_weights_1kl: jax.Array,
    seeds: jax.Array,
    guidance_scale: float | jax.Array,
    *,
    model: Model,
    schedule: Schedule,
    shape: tuple[int, int, int],
    sampler: str,
    steps: int,
    mesh: Mesh,
) -> jax.Array:
    """As `sample_latents`, of prompts in k chunks with a weight a token, float32; the UNet attends to all k * l."""
    with rows_over(mesh):
        ids = jnp.concatenate([ids_bkl, negative_1kl])
        weights = jnp.concatenate([weights_bkl, negative_weights_1kl])
        length = ids.shape[-1]
        chunks = ids.reshape(-1, length)
        hidden = emphasized(applied.encode(model, chunks), weights.reshape(-1, length))
        text = applied.conditioning(hidden, chunks)
        text = text.reshape(len(ids), -1, text.shape[-1])
        return _denoised(applied, text, seeds, guidance_scale, model, schedule, shape, sampler, steps, mesh)


def emphasized(hidden_nld: jax.Array, weights_nl: jax.Array) -> jax.Array:
    """Hidden states times a weight a token, then scaled so that each chunk's mean is what it was.

    The rule of AUTOMATIC1111's web UI ("original" emphasis), a chunk at a time, so that a picture does not depend on
    its batch. Computed in float32; a chunk without weights keeps its values to the bit.
    """
    hidden = hidden_nld.astype(jnp.float32)
    weighted = hidden * weights_nl[..., None]
    restored = weighted * (hidden.mean((1, 2), keepdims=True) / weighted.mean((1, 2), keepdims=True))
    return restored.astype(hidden_nld.dtype)


def _denoised(
    applied: Applied,
    text_nld: jax.Array,
    seeds: jax.Array,
    guidance_scale: float | jax.Array,
    model: Model,
    schedule: Schedule,
    shape: tuple[int, int, int],
    sampler: str,
    steps: int,
    mesh: Mesh,
) -> jax.Array:
    """Latents of the prompts' conditioning, of which the last row is the negative prompt's."""
    text_nld = everywhere(mesh, text_nld)  # one row more than images, so each device computes all
    text, negative = text_nld[:-1], text_nld[-1:]
    keys = keys_of(seeds)
    noise = over_data(mesh, jax.vmap(lambda key: jax.random.normal(stream(key, "latents"), shape))(keys))
    denoiser = classifier_free(partial(applied.predict, model), text, negative, guidance_scale)
    return everywhere(mesh, get_sampler(sampler)(schedule, denoiser, noise, steps, key=keys))


@jit(static_argnames=("model", "mesh"))
def decode(vae_params: Mapping[str, Any], latents_bhwc: jax.Array, *, model: Model, mesh: Mesh) -> jax.Array:
    """Scaled latents to pictures, uint8."""
    with rows_over(mesh):
        images = model.decode(vae_params, over_data(mesh, latents_bhwc))
    return everywhere(mesh, jnp.round((images + 1.0) * 127.5).astype(jnp.uint8))


@jit(static_argnames=("model", "mesh"))
def decodes_finite(vae_params: Mapping[str, Any], latents_bhwc: jax.Array, *, model: Model, mesh: Mesh) -> jax.Array:
    """Whether each of the pictures that `decode` makes is finite, bool (b,); bytes do not tell."""
    with rows_over(mesh):
        images = model.decode(vae_params, over_data(mesh, latents_bhwc))
    return everywhere(mesh, jnp.isfinite(images).all((1, 2, 3)))
