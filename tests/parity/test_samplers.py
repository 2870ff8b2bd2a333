"""Whole trajectories against diffusers' schedulers, driven by the same cheap model."""

from __future__ import annotations

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.rng import stream
from cns_jax.diffusion.samplers import SAMPLERS, ddim
from cns_jax.diffusion.schedule import (
    Schedule,
    add_noise,
    alphas_cumprod,
    karras_levels,
    noise_levels,
    target,
    timesteps_of_levels,
)

# diffusers hands tensors to numpy 2 the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
euler_ancestral = pytest.importorskip("diffusers.schedulers.scheduling_euler_ancestral_discrete")

TOLERANCE = 1e-4
SHAPE = (2, 8, 8, 4)
KEYS = jax.random.split(jax.random.key(3), SHAPE[0])


def fake_model(tanh, x, t):
    """Not linear, different at every timestep, so that a wrong timestep shows."""
    return tanh(0.7 * x + 0.002 * t) + 0.1 * x


def drawn(name: str, index: int) -> np.ndarray:
    """The noise that sampler `name` draws in step `index`."""
    return np.stack([jax.random.normal(stream(key, name, index), SHAPE[1:]) for key in KEYS])


def our_trajectory(schedule: Schedule, name: str, noise: np.ndarray, num_steps: int):
    """Inputs of every model call, then the result; timesteps."""
    calls = []

    def denoiser(x, t):
        jax.debug.callback(lambda *call: calls.append(call), x, t, ordered=True)
        return fake_model(jnp.tanh, x, t)

    result = SAMPLERS[name](schedule, denoiser, jnp.asarray(noise), num_steps, KEYS)
    jax.effects_barrier()
    return np.stack([*(x for x, _ in calls), result]), np.array([t for _, t in calls])


def their_scheduler(schedule: Schedule, name: str, **changes):
    config = schedule.to_config(name) | changes
    return getattr(diffusers, config["_class_name"]).from_config(config)


def their_trajectory(schedule: Schedule, name: str, noise: np.ndarray, num_steps: int, **changes):
    """As `our_trajectory`, and with the noise that we draw."""
    scheduler = their_scheduler(schedule, name, **changes)
    scheduler.set_timesteps(num_steps)
    x = torch.from_numpy(noise) * scheduler.init_noise_sigma
    seen = []
    for i, t in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(x, t)
        seen.append(given.numpy())
        extra = torch.from_numpy(drawn(name, i)) if name == "euler_a" else None
        with mock.patch.object(euler_ancestral, "randn_tensor", mock.Mock(return_value=extra)):
            x = scheduler.step(fake_model(torch.tanh, given, float(t)), t, x).prev_sample
    seen.append(x.numpy())
    return np.stack(seen), scheduler.timesteps.numpy()


def report(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest error, relative to the largest value of the same model input or result (first axis)."""
    axes = tuple(range(1, theirs.ndim))
    error = float((np.abs(ours - theirs).max(axes) / np.abs(theirs).max(axes)).max())
    print(f"{name}: max relative error {error:.2e} of {TOLERANCE:.0e}")
    return error


@pytest.mark.parametrize("num_steps", [10, 20, 50])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", [None, "leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_trajectory_equals_diffusers(name, spacing, prediction, num_steps):
    schedule = Schedule(timestep_spacing=spacing, prediction_type=prediction)
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    ours, our_times = our_trajectory(schedule, name, noise, num_steps)
    theirs, their_times = their_trajectory(schedule, name, noise, num_steps)
    # where times are not whole, diffusers rounds logarithms to float32
    np.testing.assert_allclose(our_times, their_times, atol=1e-3)
    assert report(f"{name} {spacing} {prediction} {num_steps}", ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("offset", [0, 3])
def test_other_offsets_and_betas_equal_diffusers(name, offset):
    schedule = Schedule(500, 0.0005, 0.015, "linear", "v_prediction", offset, "leading", set_alpha_to_one=True)
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    ours, our_times = our_trajectory(schedule, name, noise, 7)
    theirs, their_times = their_trajectory(schedule, name, noise, 7)
    np.testing.assert_allclose(our_times, their_times, atol=1e-3)
    assert report(f"{name} offset {offset}", ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_one_and_two_steps_equal_diffusers(name):
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    for num_steps in (1, 2):
        ours, _ = our_trajectory(Schedule(), name, noise, num_steps)
        theirs, _ = their_trajectory(Schedule(), name, noise, num_steps)
        assert report(f"{name} {num_steps}", ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear"])
def test_nearest_timesteps_of_karras_levels_equal_diffusers_for_any_count(beta_schedule):
    """Where ours and theirs round to either side, the model is asked about another timestep."""
    schedule = Schedule(beta_schedule=beta_schedule)
    scheduler, levels = their_scheduler(schedule, "dpm++2m_karras"), noise_levels(schedule)
    for num_steps in range(1, 301):
        scheduler.set_timesteps(num_steps)
        ours = timesteps_of_levels(schedule, karras_levels(levels[-1], levels[0], num_steps)).round()
        np.testing.assert_array_equal(ours, scheduler.timesteps.numpy())


def test_the_comparison_can_fail():
    """Other last steps, timesteps off by one, another spacing, order or solver: all are seen."""
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    ours, _ = our_trajectory(Schedule(), "ddim", noise, 10)
    for changes in ({"set_alpha_to_one": True}, {"steps_offset": 0}, {"timestep_spacing": "trailing"}):
        theirs, _ = their_trajectory(Schedule(), "ddim", noise, 10, **changes)
        assert report(f"ddim with {changes}", ours, theirs) > TOLERANCE
    ours, _ = our_trajectory(Schedule(), "dpm++2m", noise, 10)
    for changes in ({"solver_order": 1}, {"solver_type": "heun"}, {"final_sigmas_type": "sigma_min"}):
        theirs, _ = their_trajectory(Schedule(), "dpm++2m", noise, 10, **changes)
        assert report(f"dpm++2m with {changes}", ours, theirs) > TOLERANCE
    for name, changes in (
        ("euler", {"timestep_spacing": "leading"}),
        ("euler", {"use_karras_sigmas": True}),
        ("euler", {"final_sigmas_type": "sigma_min"}),
        ("euler", {"interpolation_type": "log_linear"}),
        ("euler_karras", {"use_karras_sigmas": False}),
        ("euler_karras", {"timestep_spacing": "trailing"}),
        ("euler_karras", {"sigma_min": 0.1}),
        ("euler_a", {"timestep_spacing": "trailing"}),
        ("dpm++2m_karras", {"use_karras_sigmas": False}),
        ("dpm++2m_karras", {"sigma_max": 10.0}),
        ("pndm", {"set_alpha_to_one": True}),
        ("pndm", {"steps_offset": 0}),
    ):
        ours, _ = our_trajectory(Schedule(), name, noise, 10)
        theirs, _ = their_trajectory(Schedule(), name, noise, 10, **changes)
        assert report(f"{name} with {changes}", ours, theirs) > TOLERANCE


def test_the_comparison_sees_other_noise(monkeypatch):
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    ours, _ = our_trajectory(Schedule(), "euler_a", noise, 10)
    monkeypatch.setitem(globals(), "drawn", lambda name, i, drawn=drawn: drawn(name, i + 1))
    theirs, _ = their_trajectory(Schedule(), "euler_a", noise, 10)
    assert report("euler_a with the noise of the step after", ours, theirs) > TOLERANCE


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear"])
def test_alphas_equal_diffusers(beta_schedule):
    schedule = Schedule(beta_schedule=beta_schedule)
    theirs = diffusers.DDIMScheduler.from_config(schedule.to_config()).alphas_cumprod.numpy()
    ours = alphas_cumprod(schedule)
    print(f"{beta_schedule}: {np.sum(ours != theirs)} of {ours.size} alphas differ in a bit")
    # one unit in the last place, for a torch whose linspace was built without fused multiply-add
    np.testing.assert_array_max_ulp(ours, theirs, maxulp=1)


def test_add_noise_and_velocity_equal_diffusers():
    schedule = Schedule(prediction_type="v_prediction")
    rng = np.random.default_rng(1)
    x, noise = rng.standard_normal((2, *SHAPE), np.float32)
    times = np.array([3, 997], np.int32)
    scheduler = diffusers.DDIMScheduler.from_config(schedule.to_config())
    args = torch.from_numpy(x), torch.from_numpy(noise), torch.from_numpy(times).long()
    np.testing.assert_allclose(add_noise(schedule, x, noise, times), scheduler.add_noise(*args), atol=1e-6)
    np.testing.assert_allclose(target(schedule, x, noise, times), scheduler.get_velocity(*args), atol=1e-6)


def test_ddim_with_eta_equals_diffusers():
    """Same injected noise in every step, drawn once by our keys."""
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    ours = ddim(Schedule(), functools.partial(fake_model, jnp.tanh), noise, 10, KEYS, eta=0.7)
    scheduler = diffusers.DDIMScheduler.from_config(Schedule().to_config())
    scheduler.set_timesteps(10)
    x = torch.from_numpy(noise)
    for i, t in enumerate(scheduler.timesteps):
        output = fake_model(torch.tanh, x, float(t))
        x = scheduler.step(output, t, x, eta=0.7, variance_noise=torch.from_numpy(drawn("ddim", i))).prev_sample
    assert report("ddim eta 0.7", np.asarray(ours), x.numpy()) <= TOLERANCE
