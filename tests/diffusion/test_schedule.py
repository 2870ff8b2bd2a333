"""The forward process and the settings it is made from."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.diffusion.samplers import SAMPLERS
from cns_jax.diffusion.schedule import (
    Schedule,
    ScheduleError,
    add_noise,
    alphas_cumprod,
    denoised_and_noise,
    fractional_timesteps,
    inference_timesteps,
    karras_levels,
    min_snr_weights,
    multistep_timesteps,
    noise_levels,
    sampler_of_config,
    signal_and_noise,
    target,
    timesteps_of_levels,
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


CLASSES = {  # and the sampler that each is without further settings
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "pndm",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DPMSolverMultistepScheduler": "dpm++2m",
}


@pytest.mark.parametrize("name", [*CLASSES, *SAMPLERS])
@pytest.mark.parametrize("spacing", [None, "trailing"])
def test_config_round_trip(name, spacing):
    schedule = Schedule(500, 0.001, 0.02, "linear", "v_prediction", 3, spacing, True)
    assert Schedule.from_config(schedule.to_config(name)) == schedule
    default = Schedule().to_config(name)
    assert Schedule.from_config(default) == Schedule()
    assert sampler_of_config(default) == CLASSES.get(name, name)


def test_what_we_do_not_sample_is_not_written():
    with pytest.raises(ScheduleError, match="'UniPC'; supported: 'ddim', .*'PNDMScheduler'"):
        Schedule().to_config("UniPC")


def test_samplers_of_published_configs():
    assert sampler_of_config(SD15) == "pndm"
    # a file holds the settings of other classes too, which diffusers ignores
    assert sampler_of_config({"_class_name": "DDIMScheduler", "skip_prk_steps": False, "solver_order": 3}) == "ddim"
    for kind in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
        assert sampler_of_config({"_class_name": kind, "use_karras_sigmas": True}) == f"{CLASSES[kind]}_karras"
        assert sampler_of_config({"_class_name": kind, "use_karras_sigmas": None}) == CLASSES[kind]
    assert sampler_of_config({"_class_name": "EulerAncestralDiscreteScheduler", "use_karras_sigmas": True}) == "euler_a"


EULER, DPM = "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({}, "_class_name is None; supported: 'DDIMScheduler', 'PNDMScheduler', 'Euler"),
        ({"_class_name": "LMSDiscreteScheduler"}, "_class_name is 'LMSDiscreteScheduler'; supported: 'DDIM"),
        ({"_class_name": "PNDMScheduler"}, "skip_prk_steps of PNDMScheduler is False; supported: True"),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": False}, "skip_prk_steps of PNDMScheduler is False"),
        ({"_class_name": EULER, "interpolation_type": "log_linear"}, "interpolation_type is 'log_linear'"),
        ({"_class_name": EULER, "timestep_type": "continuous"}, "timestep_type is 'continuous'; supported: 'dis"),
        ({"_class_name": EULER, "final_sigmas_type": "sigma_min"}, "final_sigmas_type is 'sigma_min'"),
        ({"_class_name": EULER, "use_beta_sigmas": True}, "use_beta_sigmas is True"),
        ({"_class_name": EULER, "sigma_max": 80.0}, "sigma_max is 80.0"),
        ({"_class_name": DPM, "algorithm_type": "sde-dpmsolver++"}, "algorithm_type is 'sde-dpmsolver"),
        ({"_class_name": DPM, "solver_order": 3}, "solver_order is 3; supported: 2"),
        ({"_class_name": DPM, "solver_type": "heun"}, "solver_type is 'heun'"),
        ({"_class_name": DPM, "final_sigmas_type": "sigma_min"}, "final_sigmas_type is 'sigma_min'"),
        ({"_class_name": DPM, "use_exponential_sigmas": True}, "use_exponential_sigmas is True"),
        ({"_class_name": DPM, "use_lu_lambdas": True}, "use_lu_lambdas is True"),
        ({"_class_name": DPM, "lambda_min_clipped": -5.1}, "lambda_min_clipped is -5.1"),
        ({"_class_name": DPM, "variance_type": "learned_range"}, "variance_type is 'learned_range'"),
    ],
)
def test_a_sampler_that_we_do_not_have_is_refused(config, named):
    with pytest.raises(ScheduleError, match=named):
        sampler_of_config(config)


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
    assert fractional_timesteps(Schedule(), 3, "linspace").tolist() == [999, 499.5, 0]
    assert fractional_timesteps(Schedule(), 4, "leading").tolist() == [751, 501, 251, 1]


def test_levels_and_timesteps_are_each_others_inverse():
    schedule = Schedule()
    times = np.arange(1000)
    signal, sigma = signal_and_noise(schedule, times)
    np.testing.assert_allclose(noise_levels(schedule), sigma / signal, rtol=1e-4)
    np.testing.assert_array_equal(noise_levels(schedule, times), noise_levels(schedule))
    np.testing.assert_allclose(timesteps_of_levels(schedule, noise_levels(schedule)), times, atol=1e-9)
    assert noise_levels(schedule, np.array([10.5])) == pytest.approx(noise_levels(schedule)[10:12].mean())


def test_karras_levels():
    levels = karras_levels(80.0, 0.002, 10)
    assert levels[[0, -1]] == pytest.approx([80, 0.002])
    np.testing.assert_allclose(np.diff(levels ** (1 / 7)), np.diff(levels ** (1 / 7)).mean())


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
