"""Laws of every sampler; equality with diffusers is in tests/parity."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.diffusion.samplers import SAMPLERS, ddim, get_sampler
from cns_jax.diffusion.schedule import PREDICTION_TYPES, Schedule, ScheduleError, alphas_cumprod, noise_levels

SCHEDULE = Schedule()
SHAPE = (2, 4, 4, 3)
NAMES = sorted(SAMPLERS)
KEYS = jax.random.split(jax.random.key(0), SHAPE[0])


def noise(seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(SHAPE, np.float32))


def signal_and_noise(schedule: Schedule, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Between whole timesteps too."""
    levels = noise_levels(schedule)
    level = jnp.interp(t, jnp.arange(len(levels)), levels)
    return 1 / jnp.sqrt(1 + level**2), level / jnp.sqrt(1 + level**2)


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


# without PNDM of v, which it combines over several noise levels: the test after this one is its own
EXACT = [(name, prediction) for name in NAMES for prediction in PREDICTION_TYPES]
EXACT.remove(("pndm", "v_prediction"))


@pytest.mark.parametrize("num_steps", [1, 2, 20])
@pytest.mark.parametrize(("name", "prediction"), EXACT)
def test_an_exact_model_gives_the_image(name, num_steps, prediction):
    schedule = Schedule(prediction_type=prediction, set_alpha_to_one=True)
    image = noise(1)
    out = SAMPLERS[name](schedule, knows_the_image(schedule, image), noise(), num_steps, KEYS)
    np.testing.assert_allclose(out, image, atol=2e-4)


def test_pndm_with_v_comes_closer_with_more_steps():
    schedule, image = Schedule(prediction_type="v_prediction", set_alpha_to_one=True), noise(1)
    model = knows_the_image(schedule, image)
    few, many = (float(jnp.abs(SAMPLERS["pndm"](schedule, model, noise(), n) - image).max()) for n in (5, 50))
    assert many < few / 10 and many < 5e-3


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
    for name in ("euler", "euler_karras", "dpm++2m_karras"):
        assert error(name, 40) < error(name, 10) / 3
    assert error("pndm", 40) < error("ddim", 40) / 4


@pytest.mark.parametrize("name", NAMES)
def test_a_gaussian_keeps_its_variance(name):
    """Where fresh noise is drawn the trajectory is not known, but the distribution at its end is."""
    variance, schedule = 4.0, Schedule(set_alpha_to_one=True, timestep_spacing="trailing")
    start = jnp.asarray(np.random.default_rng(0).standard_normal((64, 8, 8, 4), np.float32))
    out = SAMPLERS[name](schedule, gaussian(variance), start, 100, jax.random.split(jax.random.key(0), 64))
    assert abs(float(out.var()) / variance - 1) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_one_trace_of_the_model_whatever_the_steps(name):
    calls = []

    def denoiser(x, t):
        calls.append((t.shape, t.dtype))
        return 0.1 * x

    run = jax.jit(SAMPLERS[name], static_argnums=(0, 1, 3))
    out = run(SCHEDULE, denoiser, noise(), 30, KEYS)
    assert calls == [((), jnp.float32)]
    assert out.shape == SHAPE and out.dtype == jnp.float32
    run(SCHEDULE, denoiser, noise(2), 30, KEYS)
    assert len(calls) == 1


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_mix(name):
    run = functools.partial(SAMPLERS[name], SCHEDULE, lambda x, t: jnp.tanh(x), num_steps=7)
    both = run(noise(), key=KEYS)
    np.testing.assert_allclose(both[::-1], run(noise()[::-1], key=KEYS[::-1]), atol=1e-6)
    np.testing.assert_allclose(both[1:], run(noise()[1:], key=KEYS[1:]), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_models_are_sampled_in_float32(name):
    out = SAMPLERS[name](SCHEDULE, lambda x, t: x.astype(jnp.bfloat16), noise().astype(jnp.bfloat16), 3, KEYS)
    assert out.dtype == jnp.float32 and bool(jnp.isfinite(out).all())


STOCHASTIC = {"ddim with eta": functools.partial(ddim, eta=1.0), "euler_a": SAMPLERS["euler_a"]}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_comes_from_the_key_of_each_image(name):
    run = functools.partial(STOCHASTIC[name], SCHEDULE, gaussian(1.0), noise(), 5)
    with pytest.raises(ValueError, match="pass a key for each image"):
        run()
    for wrong in (jax.random.key(0), jax.random.split(jax.random.key(0), 3)):
        with pytest.raises(ValueError, match=r"one key an image, shape \(2,\)"):
            run(key=wrong)
    one, again = run(key=KEYS), run(key=KEYS)
    np.testing.assert_array_equal(one, again)
    other = run(key=jnp.stack([KEYS[0], jax.random.key(7)]))
    np.testing.assert_array_equal(one[0], other[0])
    assert float(jnp.abs(one[1] - other[1]).max()) > 0.1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "euler_a"])
def test_the_others_ignore_the_key(name):
    run = functools.partial(SAMPLERS[name], SCHEDULE, gaussian(1.0), noise(), 5)
    np.testing.assert_array_equal(run(), run(key=KEYS))


def times_of(name: str, schedule: Schedule, num_steps: int) -> list[float]:
    times = []
    with jax.disable_jit():
        SAMPLERS[name](schedule, lambda x, t: times.append(float(t)) or x, noise(), num_steps, KEYS)
    return times


def test_fractional_timesteps():
    for name in ("euler", "euler_a"):
        np.testing.assert_allclose(times_of(name, SCHEDULE, 5), [999, 749.25, 499.5, 249.75, 0])
        assert times_of(name, Schedule(timestep_spacing="leading"), 5) == [801, 601, 401, 201, 1]
    karras = times_of("euler_karras", SCHEDULE, 5)
    assert karras[0] == 999 and karras[-1] == 0 and all(t % 1 for t in karras[1:-1])
    assert times_of("dpm++2m_karras", SCHEDULE, 5) == [round(t) for t in karras]


@pytest.mark.parametrize(("num_steps", "times"), [(1, [1]), (2, [501, 1, 1]), (5, [801, 601, 601, 401, 201, 1])])
def test_pndm_takes_its_first_step_twice(num_steps, times):
    assert times_of("pndm", SCHEDULE, num_steps) == times


def test_unknown_sampler_lists_the_known():
    assert get_sampler("ddim") is ddim
    with pytest.raises(ScheduleError, match=r"'euler2'; known: ddim, pndm, euler, .*dpm\+\+2m"):
        get_sampler("euler2")
