"""Whole trajectories against diffusers' schedulers, driven by the same cheap model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.rng import stream
from cns_jax.diffusion.samplers import SAMPLERS, ddim
from cns_jax.diffusion.schedule import Schedule, add_noise, alphas_cumprod, target

# diffusers hands tensors to numpy 2 the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

TOLERANCE = 1e-4
SHAPE = (2, 8, 8, 4)
THEIRS = {"ddim": "DDIMScheduler", "dpm++2m": "DPMSolverMultistepScheduler"}


def fake_model(tanh, x, t):
    """Not linear, different at every timestep, so that a wrong timestep shows."""
    return tanh(0.7 * x + 0.002 * t) + 0.1 * x


def our_trajectory(schedule: Schedule, name: str, noise: np.ndarray, num_steps: int):
    """Inputs of every model call, then the result; timesteps."""
    seen, times = [], []

    def denoiser(x, t):
        seen.append(np.asarray(x))
        times.append(int(t))
        return fake_model(jnp.tanh, x, t.astype(jnp.float32))

    with jax.disable_jit():
        seen.append(np.asarray(SAMPLERS[name](schedule, denoiser, jnp.asarray(noise), num_steps)))
    return np.stack(seen), times


def their_trajectory(schedule: Schedule, name: str, noise: np.ndarray, num_steps: int, **changes):
    scheduler = getattr(diffusers, THEIRS[name]).from_config(schedule.to_config(THEIRS[name]) | changes)
    scheduler.set_timesteps(num_steps)
    x = torch.from_numpy(noise) * scheduler.init_noise_sigma
    seen = []
    for t in scheduler.timesteps:
        seen.append(x.numpy())
        x = scheduler.step(fake_model(torch.tanh, x, float(t)), t, x).prev_sample
    seen.append(x.numpy())
    return np.stack(seen), [int(t) for t in scheduler.timesteps]


def report(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
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
    assert our_times == their_times
    assert report(f"{name} {spacing} {prediction} {num_steps}", ours, theirs) <= TOLERANCE


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
    """Same injected noise in every step, drawn once by our key."""
    key, noise = jax.random.key(3), np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    ours = ddim(Schedule(), lambda x, t: fake_model(jnp.tanh, x, t.astype(jnp.float32)), noise, 10, 0.7, key)
    scheduler = diffusers.DDIMScheduler.from_config(Schedule().to_config())
    scheduler.set_timesteps(10)
    x = torch.from_numpy(noise)
    for t in scheduler.timesteps:
        extra = np.asarray(jax.random.normal(stream(key, "ddim", int(t)), SHAPE))
        output = fake_model(torch.tanh, x, float(t))
        x = scheduler.step(output, t, x, eta=0.7, variance_noise=torch.from_numpy(extra.copy())).prev_sample
    assert report("ddim eta 0.7", np.asarray(ours), x.numpy()) <= TOLERANCE
