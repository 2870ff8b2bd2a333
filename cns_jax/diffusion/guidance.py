"""Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598).

Legend of shapes: b batch, h w c latent height, width, channels, l tokens, d text width.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cns_jax.diffusion.samplers import Denoiser

# (latents_bhwc, timesteps_b float32, text_bld) -> model output, shape of the latents; text may have several rows
# for one of the latents, beside each other, and so has the output
ConditionalDenoiser = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def conditional(denoise: ConditionalDenoiser, text_bld: jax.Array) -> Denoiser:
    """A denoiser that follows `text_bld` without guidance, one evaluation an image."""

    def denoiser(latents_bhwc: jax.Array, timestep: jax.Array) -> jax.Array:
        return denoise(latents_bhwc, _per_image(timestep, latents_bhwc.shape[0]), text_bld)

    return denoiser


def classifier_free(
    denoise: ConditionalDenoiser,
    text_bld: jax.Array,
    negative_bld: jax.Array,
    guidance_scale: float | jax.Array,
) -> Denoiser:
    """A denoiser that goes from the negative prompt's output towards and beyond the prompt's.

    text_bld, negative_bld: hidden states as the model receives them; one negative row (1, l, d) serves all
    images. guidance_scale 1 is no guidance, SD's usual value is 7.5. Both prompts run in one batch of 2b, an image's
    two rows beside each other: where devices share the batch, neither has to be moved, and the model computes once
    what comes before the text.
    """
    both_bld = jnp.stack([jnp.broadcast_to(negative_bld, text_bld.shape), text_bld], axis=1)
    both_bld = both_bld.reshape(-1, *text_bld.shape[1:])

    def denoiser(latents_bhwc: jax.Array, timestep: jax.Array) -> jax.Array:
        output_bhwc = denoise(latents_bhwc, _per_image(timestep, latents_bhwc.shape[0]), both_bld)
        pairs = output_bhwc.astype(jnp.float32).reshape(-1, 2, *latents_bhwc.shape[1:])
        without, along = pairs[:, 0], pairs[:, 1]
        return without + guidance_scale * (along - without)

    return denoiser


def _per_image(timestep: jax.Array, count: int) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(timestep, jnp.float32), (count,))
