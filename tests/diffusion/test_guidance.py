"""Classifier-free guidance against its formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.diffusion.guidance import classifier_free, conditional

B, H, L, D = 3, 4, 5, 6


def model(latents_bhwc, timesteps_b, text_bld):
    """Of as many rows as the text has, as the UNet."""
    assert timesteps_b.shape == latents_bhwc.shape[:1]
    assert timesteps_b.dtype == jnp.float32
    rows = len(text_bld) // len(latents_bhwc)
    bias_b = text_bld.mean((1, 2)) + 0.01 * jnp.repeat(timesteps_b, rows)
    return jnp.repeat(jnp.tanh(latents_bhwc), rows, axis=0) * bias_b[:, None, None, None]


def inputs():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((B, H, H, 2), np.float32))
    text, negative = jnp.asarray(rng.standard_normal((2, B, L, D), np.float32))
    return x, text, negative


def test_formula():
    x, text, negative = inputs()
    t = jnp.float32(7.5)
    along, without = conditional(model, text)(x, t), conditional(model, negative)(x, t)
    got = classifier_free(model, text, negative, 7.5)(x, t)
    np.testing.assert_allclose(got, without + 7.5 * (along - without), rtol=1e-5)


def test_scale_one_follows_the_prompt_and_zero_the_negative():
    x, text, negative = inputs()
    t = jnp.float32(7.5)
    for scale, alone in ((1.0, text), (0.0, negative)):
        got = classifier_free(model, text, negative, scale)(x, t)
        np.testing.assert_allclose(got, conditional(model, alone)(x, t), atol=1e-5)


def test_one_negative_serves_all_images():
    x, text, negative = inputs()
    one = classifier_free(model, text, negative[:1], 3.0)(x, jnp.float32(1))
    all_same = classifier_free(model, text, jnp.repeat(negative[:1], B, 0), 3.0)(x, jnp.float32(1))
    np.testing.assert_array_equal(one, all_same)


def test_one_evaluation_with_both_prompts_and_a_traced_scale():
    x, text, negative = inputs()
    batches = []

    def counting(latents_bhwc, timesteps_b, text_bld):
        batches.append((len(latents_bhwc), len(text_bld)))
        return model(latents_bhwc, timesteps_b, text_bld)

    run = jax.jit(lambda scale: classifier_free(counting, text, negative, scale)(x, jnp.float32(5)))
    run(2.0)
    run(9.0)
    assert batches == [(B, 2 * B)]


def test_fractional_timesteps_reach_the_model():
    x, text, negative = inputs()
    seen = [
        denoiser(x, jnp.float32(t))
        for denoiser in (conditional(model, text), classifier_free(model, text, negative, 2.0))
        for t in (7, 7.5)
    ]
    assert not np.allclose(seen[0], seen[1]) and not np.allclose(seen[2], seen[3])
