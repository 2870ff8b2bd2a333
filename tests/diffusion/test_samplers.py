"""Laws of every sampler; equality with diffusers is in tests/parity."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.diffusion.samplers import SAMPLERS, ddim, get_sampler
from cns_jax.diffusion.schedule import Schedule, ScheduleError, alphas_cumprod, signal_and_noise

SCHEDULE = Schedule()
SHAPE = (2, 4, 4, 3)
NAMES = sorted(SAMPLERS)


def noise(seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(SHAPE, np.float32))


def knows_the_image(schedule: Schedule, image: jax.Array):
    """The exact model of a world with one image."""

    def denoiser(x, t):
        signal, sigma = signal_and_noise(schedule, t)
        epsilon = (x - signal * image) / sigma
        return epsilon if schedule.prediction_type == "epsilon" else (signal * x - image) / sigma

    return denoiser


def gaussian(variance: float):
    """The exact epsilon of data N(0, variance), for which the probability-flow ODE is known."""

    def denoiser(x, t):
        signal, sigma = signal_and_noise(SCHEDULE, t)
        return sigma * x / (signal**2 * variance + sigma**2)

    return denoiser


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("num_steps", [1, 2, 20])
@pytest.mark.parametrize("name", NAMES)
def test_an_exact_model_gives_the_image(name, num_steps, prediction):
    schedule = Schedule(prediction_type=prediction, set_alpha_to_one=True)
    image = noise(1)
    out = SAMPLERS[name](schedule, knows_the_image(schedule, image), noise(), num_steps)
    np.testing.assert_allclose(out, image, atol=2e-4)


def test_more_steps_and_second_order_come_closer():
    """To x sqrt(variance / variance at the start), the end of the exact trajectory of a Gaussian."""
    variance, schedule = 4.0, Schedule(set_alpha_to_one=True, timestep_spacing="trailing")
    table = alphas_cumprod(schedule)
    exact = noise() * np.sqrt(variance / (table[-1] * variance + 1 - table[-1]))

    def error(name: str, num_steps: int) -> float:
        out = SAMPLERS[name](schedule, gaussian(variance), noise(), num_steps)
        return float(jnp.abs(out / exact - 1).max())

    assert error("ddim", 40) < error("ddim", 10) / 3
    assert error("dpm++2m", 40) < error("dpm++2m", 10) / 3
    assert error("dpm++2m", 10) < error("ddim", 10) / 4


@pytest.mark.parametrize("name", NAMES)
def test_one_trace_of_the_model_whatever_the_steps(name):
    calls = []

    def denoiser(x, t):
        calls.append(t.shape)
        return 0.1 * x

    run = jax.jit(SAMPLERS[name], static_argnums=(0, 1, 3))
    out = run(SCHEDULE, denoiser, noise(), 30)
    assert calls == [()]
    assert out.shape == SHAPE and out.dtype == jnp.float32
    run(SCHEDULE, denoiser, noise(2), 30)
    assert len(calls) == 1


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_mix(name):
    run = functools.partial(SAMPLERS[name], SCHEDULE, lambda x, t: jnp.tanh(x), num_steps=7)
    np.testing.assert_allclose(run(noise())[::-1], run(noise()[::-1]), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_models_are_sampled_in_float32(name):
    out = SAMPLERS[name](SCHEDULE, lambda x, t: x.astype(jnp.bfloat16), noise().astype(jnp.bfloat16), 3)
    assert out.dtype == jnp.float32 and bool(jnp.isfinite(out).all())


def test_eta_needs_and_uses_a_key():
    denoiser = gaussian(1.0)
    with pytest.raises(ValueError, match="pass a key"):
        ddim(SCHEDULE, denoiser, noise(), 5, eta=1.0)
    one, again, other = (ddim(SCHEDULE, denoiser, noise(), 5, 1.0, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert float(jnp.abs(one - other).max()) > 0.1


def test_unknown_sampler_lists_the_known():
    assert get_sampler("ddim") is ddim
    with pytest.raises(ScheduleError, match=r"'euler2'; known: ddim, dpm\+\+2m"):
        get_sampler("euler2")
