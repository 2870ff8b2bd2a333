"""Samplers: each is one pure function of a schedule, a denoiser and noise, compiled as one scan.

Legend of shapes: b batch, h w c latent height, width, channels, s sampling steps.
All coefficients are computed on the host in float64 from the schedule's float32 table, so a step is a short
linear combination, and everything but the model's output is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.rng import stream
from cns_jax.diffusion.schedule import (
    Schedule,
    ScheduleError,
    alphas_cumprod,
    denoised_and_noise,
    inference_timesteps,
    multistep_timesteps,
)

# (latents_bhwc float32, timestep int32 scalar) -> model output, shape of the latents
Denoiser = Callable[[jax.Array, jax.Array], jax.Array]


class Sampler(Protocol):
    """What every entry of SAMPLERS accepts; `noise_bhwc` is standard normal, the sampler scales it itself."""

    def __call__(self, schedule: Schedule, denoiser: Denoiser, noise_bhwc: jax.Array, num_steps: int) -> jax.Array:
        """Latents x_0."""
        ...


def ddim(
    schedule: Schedule,
    denoiser: Denoiser,
    noise_bhwc: jax.Array,
    num_steps: int,
    eta: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """DDIM, eq. 12 and 16 of Song et al. 2021 (arXiv:2010.02502); latents x_0, float32 (b, h, w, c).

    noise_bhwc: standard normal. num_steps and eta are static. eta 0 is deterministic, 1 is DDPM; above 0 it
    needs `key`. Raises ScheduleError if the steps do not fit the schedule, ValueError if the key is missing.
    """
    if eta > 0 and key is None:
        raise ValueError("ddim with eta > 0 draws noise in every step: pass a key")
    times_s = inference_timesteps(schedule, num_steps, "leading")
    table = alphas_cumprod(schedule).astype(np.float64)
    now_s = table[times_s]
    before_s = times_s - schedule.num_train_timesteps // num_steps
    final = 1.0 if schedule.set_alpha_to_one else table[0]
    prev_s = np.where(before_s >= 0, table[before_s], final)
    std_s = eta * np.sqrt((1 - prev_s) / (1 - now_s) * (1 - now_s / prev_s))
    steps = {
        "time": times_s,
        "signal": np.sqrt(now_s),
        "sigma": np.sqrt(1 - now_s),
        "to_x0": np.sqrt(prev_s),
        "to_noise": np.sqrt(1 - prev_s - std_s**2),
        "std": std_s,
    }

    def step(x: jax.Array, s: dict[str, jax.Array]) -> tuple[jax.Array, None]:
        output = denoiser(x, s["time"]).astype(jnp.float32)
        x0, epsilon = denoised_and_noise(schedule, x, output, s["signal"], s["sigma"])
        x = s["to_x0"] * x0 + s["to_noise"] * epsilon
        if key is not None and eta > 0:
            x = x + s["std"] * jax.random.normal(stream(key, "ddim", s["time"]), x.shape)
        return x, None

    return jax.lax.scan(step, noise_bhwc.astype(jnp.float32), _on_device(steps))[0]


def dpm_solver_pp_2m(schedule: Schedule, denoiser: Denoiser, noise_bhwc: jax.Array, num_steps: int) -> jax.Array:
    """DPM-Solver++(2M), alg. 2 of Lu et al. 2022 (arXiv:2211.01095); latents x_0, float32 (b, h, w, c).

    noise_bhwc: standard normal. num_steps is static. As diffusers' DPMSolverMultistepScheduler at its
    defaults: midpoint form, first order in the first and the last step, last noise level 0.
    Raises ScheduleError if the steps do not fit the schedule.
    """
    times_s = multistep_timesteps(schedule, num_steps, "linspace")
    alpha_s = np.append(alphas_cumprod(schedule).astype(np.float64)[times_s], 1.0)
    steps = {"time": times_s, "signal": np.sqrt(alpha_s[:-1]), "sigma": np.sqrt(1 - alpha_s[:-1])}
    steps |= _second_order_weights(np.sqrt(alpha_s), np.sqrt(1 - alpha_s))

    def step(carry: tuple[jax.Array, jax.Array], s: dict[str, jax.Array]) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, x0_before = carry
        output = denoiser(x, s["time"]).astype(jnp.float32)
        x0, _ = denoised_and_noise(schedule, x, output, s["signal"], s["sigma"])
        x = s["keep"] * x + s["to_x0"] * x0 + s["to_slope"] * (x0 - x0_before)
        return (x, x0), None

    x = noise_bhwc.astype(jnp.float32)
    return jax.lax.scan(step, (x, jnp.zeros_like(x)), _on_device(steps))[0][0]


def _second_order_weights(signal: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
    """Weights (s,) in x_next = keep x + to_x0 x0 + to_slope (x0 - x0_before), from s + 1 noise levels."""
    half_log_snr = np.log(signal[:-1]) - np.log(sigma[:-1])
    # the last level is 0, its log-SNR infinite: the step lands on x0, without slope
    h = np.append(np.diff(half_log_snr), np.inf)
    to_x0 = signal[1:] * -np.expm1(-h)
    to_slope = np.zeros_like(to_x0)
    to_slope[1:-1] = 0.5 * to_x0[1:-1] * h[1:-1] / h[:-2]
    return {"keep": sigma[1:] / sigma[:-1], "to_x0": to_x0, "to_slope": to_slope}


def _on_device(steps: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(v, jnp.int32 if name == "time" else jnp.float32) for name, v in steps.items()}


SAMPLERS: dict[str, Sampler] = {"ddim": ddim, "dpm++2m": dpm_solver_pp_2m}


def get_sampler(name: str) -> Sampler:
    """The sampler called `name`; raises ScheduleError naming the known ones."""
    if name not in SAMPLERS:
        raise ScheduleError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
