"""The forward process and the settings it is made from."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.diffusion.schedule import (
    Schedule,
    ScheduleError,
    add_noise,
    alphas_cumprod,
    denoised_and_noise,
    inference_timesteps,
    min_snr_weights,
    multistep_timesteps,
    signal_and_noise,
    target,
)

SD15 = {  # scheduler_config.json of stable-diffusion-v1-5
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def test_defaults_are_stable_diffusion():
    assert Schedule.from_config(SD15) == Schedule()
    assert hash(Schedule.from_config(SD15)) == hash(Schedule())


@pytest.mark.parametrize("class_name", ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("spacing", [None, "trailing"])
def test_config_round_trip(class_name, spacing):
    schedule = Schedule(500, 0.001, 0.02, "linear", "v_prediction", 3, spacing, True)
    assert Schedule.from_config(schedule.to_config(class_name)) == schedule
    default = Schedule()
    assert Schedule.from_config(default.to_config(class_name)) == default


def test_absent_keys_take_diffusers_defaults():
    assert Schedule.from_config({}) == Schedule(1000, 0.0001, 0.02, "linear", "epsilon", 0, None, True)
    assert not Schedule.from_config({"_class_name": "PNDMScheduler"}).set_alpha_to_one


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"clip_sample": True}, "clip_sample is True"),
        ({"thresholding": True}, "thresholding"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "squaredcos_cap_v2.*'scaled_linear', 'linear'"),
        ({"prediction_type": "sample"}, "prediction_type"),
        ({"timestep_spacing": "even"}, "timestep_spacing"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "beta_start <= beta_end"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change, named):
    with pytest.raises(ScheduleError, match=named):
        Schedule.from_config(SD15 | change)


def test_a_ddim_config_that_clips_by_default_is_refused():
    with pytest.raises(ScheduleError, match="clip_sample"):
        Schedule.from_config({"_class_name": "DDIMScheduler"})


def test_alphas_fall_from_one_to_zero():
    table = alphas_cumprod(Schedule())
    assert table.shape == (1000,) and table.dtype == np.float32 and not table.flags.writeable
    assert np.all(np.diff(table) < 0) and table[0] > 0.999 and 0 < table[-1] < 0.01


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_target_gives_back_image_and_noise(prediction):
    schedule = Schedule(prediction_type=prediction)
    rng = np.random.default_rng(0)
    x0, noise = jnp.asarray(rng.standard_normal((2, 3, 4, 4, 2), np.float32))
    times = jnp.array([0, 500, 999])
    x = add_noise(schedule, x0, noise, times)
    signal, sigma = (s[:, None, None, None] for s in signal_and_noise(schedule, times))
    output = target(schedule, x0, noise, times)
    signal, sigma = jnp.broadcast_to(signal, x.shape), jnp.broadcast_to(sigma, x.shape)
    got_x0, got_noise = denoised_and_noise(schedule, x, output, signal, sigma)
    np.testing.assert_allclose(got_x0, x0, atol=1e-5)
    np.testing.assert_allclose(got_noise, noise, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_error_of_the_image(prediction):
    """Whatever the model outputs, weight * its squared error is min(snr, gamma) * that of the image it implies."""
    schedule, gamma = Schedule(prediction_type=prediction), 5.0
    times = jnp.array([3, 100, 400, 700, 999])
    x, output = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5), np.float32))
    signal, sigma = signal_and_noise(schedule, times)
    x0, moved = (denoised_and_noise(schedule, x, o, signal, sigma)[0] for o in (output, output + 0.1))
    snr = jnp.square(signal / sigma)
    assert snr[0] > gamma > snr[-1]
    weighted = min_snr_weights(schedule, times, gamma) * 0.1**2
    np.testing.assert_allclose(weighted, jnp.minimum(snr, gamma) * jnp.square(moved - x0), rtol=2e-3)
    np.testing.assert_array_equal(min_snr_weights(schedule, times, 0.0), np.ones(5))


def test_dtype_of_the_latents_is_kept():
    x = jnp.ones((2, 2, 2, 1), jnp.bfloat16)
    assert add_noise(Schedule(), x, x, jnp.array([1, 2])).dtype == jnp.bfloat16
    assert target(Schedule(prediction_type="v_prediction"), x, x, jnp.array([1, 2])).dtype == jnp.bfloat16


def test_timesteps():
    assert inference_timesteps(Schedule(), 4, "leading").tolist() == [751, 501, 251, 1]
    assert inference_timesteps(Schedule(), 4, "linspace").tolist() == [999, 666, 333, 0]
    assert inference_timesteps(Schedule(timestep_spacing="trailing"), 4, "leading").tolist() == [
        999,
        749,
        499,
        249,
    ]
    assert multistep_timesteps(Schedule(), 4, "linspace").tolist() == [999, 749, 500, 250]


@pytest.mark.parametrize("make", [inference_timesteps, multistep_timesteps])
def test_trailing_has_as_many_steps_as_asked(make):
    schedule = Schedule(timestep_spacing="trailing")
    for count in range(1, 1001):
        steps = make(schedule, count, "leading")
        assert len(steps) == count and steps.min() >= 0 and steps.max() == 999


@pytest.mark.parametrize("count", [0, 1001])
def test_too_few_and_too_many_steps(count):
    with pytest.raises(ScheduleError, match=f"num_steps is {count}"):
        inference_timesteps(Schedule(), count, "leading")


def test_steps_that_do_not_fit():
    with pytest.raises(ScheduleError, match="steps_offset 1 reach 1000"):
        inference_timesteps(Schedule(), 1000, "leading")
    with pytest.raises(ScheduleError, match="twice"):
        multistep_timesteps(Schedule(), 1000, "linspace")
