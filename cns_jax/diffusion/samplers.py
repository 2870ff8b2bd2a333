"""Samplers: each is one pure function of a schedule, a denoiser and noise, compiled as one scan.

Legend of shapes: b batch, h w c latent height, width, channels, s sampling steps.
All coefficients are computed on the host in float64 from the schedule's float32 table, so a step is a short
linear combination, and everything but the model's output is float32.

All samplers hold latents in the scale that the model was trained in, x = signal * x_0 + sigma * epsilon with
signal**2 + sigma**2 = 1. diffusers' Euler schedulers hold x / signal and scale every input of the model back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.rng import stream
from cns_jax.diffusion.schedule import (
    Schedule,
    ScheduleError,
    alphas_cumprod,
    denoised_and_noise,
    fractional_timesteps,
    inference_timesteps,
    karras_levels,
    multistep_timesteps,
    noise_levels,
    timesteps_of_levels,
)

# (latents_bhwc float32, timestep float32 scalar, whole or not) -> model output, shape of the latents
Denoiser = Callable[[jax.Array, jax.Array], jax.Array]

# weights of the outputs that PLMS combines, newest first, in its first calls and (last row) ever after: Euler,
# the mean with the output of the call before, then Adams-Bashforth of order 2, 3, 4
_PLMS = np.array(
    [
        [1, 0, 0, 0],
        [1 / 2, 1 / 2, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
)


class Sampler(Protocol):
    """What every entry of SAMPLERS accepts."""

    def __call__(
        self,
        schedule: Schedule,
        denoiser: Denoiser,
        noise_bhwc: jax.Array,
        num_steps: int,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Latents x_0, float32 (b, h, w, c).

        noise_bhwc: standard normal; the sampler scales it itself. num_steps is static. key: one key an image,
        (b,), from which samplers that draw noise draw it, so that an image does not depend on its batch;
        the others ignore it. Raises ScheduleError if the steps do not fit the schedule, ValueError if the
        keys are missing where they are needed, or are not one an image.
        """
        ...


def ddim(
    schedule: Schedule,
    denoiser: Denoiser,
    noise_bhwc: jax.Array,
    num_steps: int,
    key: jax.Array | None = None,
    eta: float = 0.0,
) -> jax.Array:
    """DDIM, eq. 12 and 16 of Song et al. 2021 (arXiv:2010.02502); see `Sampler`.

    eta is static: 0 is deterministic, 1 is DDPM; above 0 it needs `key`.
    """
    times_s = inference_timesteps(schedule, num_steps, "leading")
    now_s = _alphas(schedule, times_s)
    prev_s = _alphas(schedule, times_s - schedule.num_train_timesteps // num_steps)
    steps = {"time": times_s} | _first_order_weights(now_s, prev_s, eta)
    return _first_order(schedule, denoiser, noise_bhwc, steps, _stream("ddim", noise_bhwc, key) if eta > 0 else None)


def pndm(
    schedule: Schedule, denoiser: Denoiser, noise_bhwc: jax.Array, num_steps: int, key: jax.Array | None = None
) -> jax.Array:
    """PLMS, the linear multistep form of PNDM (Liu et al. 2022, arXiv:2202.09778, alg. 2); see `Sampler`.

    As diffusers' PNDMScheduler with skip_prk_steps: instead of the paper's Runge-Kutta start, the first step
    is taken twice, the second time with the mean of the outputs at both its ends. So the model is called
    num_steps + 1 times (once for one step). Deterministic. What is combined are the model's outputs, as in
    diffusers: with v-prediction they belong to several noise levels, and even an exact model comes out inexact.
    """
    visited_s = inference_timesteps(schedule, num_steps, "leading")
    interval = schedule.num_train_timesteps // num_steps
    times_s = np.concatenate([visited_s[:2], visited_s[1:]])
    again_s = np.arange(len(times_s)) == 1
    start_s = times_s + interval * again_s
    steps = {"time": times_s, "again": again_s, "weights": _PLMS[np.minimum(np.arange(len(times_s)), len(_PLMS) - 1)]}
    steps |= _first_order_weights(_alphas(schedule, start_s), _alphas(schedule, start_s - interval))

    def step(carry: tuple[jax.Array, jax.Array, list[jax.Array]], s: dict[str, jax.Array]) -> tuple[Any, None]:
        x, x_before, past = carry
        output = denoiser(x, s["time"]).astype(jnp.float32)
        newest = [output, *past]
        # not a dot product, which accelerators round to fewer bits
        combined = functools.reduce(jnp.add, [s["weights"][i] * newest[i] for i in range(len(newest))])
        start = jnp.where(s["again"], x_before, x)
        x0, epsilon = denoised_and_noise(schedule, start, combined, s["signal"], s["sigma"])
        kept = [jnp.where(s["again"], old, new) for old, new in zip(past, newest[:-1], strict=True)]
        return (s["to_x0"] * x0 + s["to_noise"] * epsilon, x, kept), None

    x = noise_bhwc.astype(jnp.float32)
    return jax.lax.scan(step, (x, x, [jnp.zeros_like(x)] * (_PLMS.shape[1] - 1)), _on_device(steps))[0][0]


def euler(
    schedule: Schedule,
    denoiser: Denoiser,
    noise_bhwc: jax.Array,
    num_steps: int,
    key: jax.Array | None = None,
    karras: bool = False,
) -> jax.Array:
    """Euler's method, alg. 1 of Karras et al. 2022 (arXiv:2206.00364) without its second-order correction.

    See `Sampler`; as diffusers' EulerDiscreteScheduler. Deterministic. karras is static: the noise levels of
    eq. 5 between the first and the last level of the timesteps.
    """
    times_s = fractional_timesteps(schedule, num_steps, "linspace")
    levels_s = noise_levels(schedule, times_s)
    if karras:
        levels_s = karras_levels(levels_s[0], levels_s[-1], num_steps)
        times_s = timesteps_of_levels(schedule, levels_s)
    return _euler(schedule, denoiser, noise_bhwc, times_s, levels_s)


def euler_ancestral(
    schedule: Schedule, denoiser: Denoiser, noise_bhwc: jax.Array, num_steps: int, key: jax.Array | None = None
) -> jax.Array:
    """Euler steps to less noise than the next level, then fresh noise up to it; see `Sampler`. Needs `key`.

    As diffusers' EulerAncestralDiscreteScheduler. The fresh noise is that of ancestral sampling, Ho et al. 2020
    (arXiv:2006.11239), which is eta 1 of Song et al. 2021 (arXiv:2010.02502, eq. 16), over Euler's timesteps.
    """
    times_s = fractional_timesteps(schedule, num_steps, "linspace")
    draw = _stream("euler_a", noise_bhwc, key)
    return _euler(schedule, denoiser, noise_bhwc, times_s, noise_levels(schedule, times_s), draw)


def dpm_solver_pp_2m(
    schedule: Schedule,
    denoiser: Denoiser,
    noise_bhwc: jax.Array,
    num_steps: int,
    key: jax.Array | None = None,
    karras: bool = False,
) -> jax.Array:
    """DPM-Solver++(2M), alg. 2 of Lu et al. 2022 (arXiv:2211.01095); see `Sampler`.

    As diffusers' DPMSolverMultistepScheduler at its defaults: midpoint form, first order in the first and the
    last step, last noise level 0. Deterministic. karras is static: the noise levels of Karras et al. 2022
    (arXiv:2206.00364, eq. 5) over the whole schedule, whatever its spacing; the model gets the nearest timesteps.
    """
    times_s = multistep_timesteps(schedule, num_steps, "linspace")
    levels_s = noise_levels(schedule, times_s)
    if karras:
        levels = noise_levels(schedule)
        levels_s = karras_levels(levels[-1], levels[0], num_steps)
        times_s = timesteps_of_levels(schedule, levels_s).round()
    signal_s = 1 / np.sqrt(1 + np.append(levels_s, 0) ** 2)
    sigma_s = np.append(levels_s, 0) * signal_s
    steps = {"time": times_s, "signal": signal_s[:-1], "sigma": sigma_s[:-1]}
    steps |= _second_order_weights(signal_s, sigma_s)

    def step(carry: tuple[jax.Array, jax.Array], s: dict[str, jax.Array]) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, x0_before = carry
        output = denoiser(x, s["time"]).astype(jnp.float32)
        x0, _ = denoised_and_noise(schedule, x, output, s["signal"], s["sigma"])
        x = s["keep"] * x + s["to_x0"] * x0 + s["to_slope"] * (x0 - x0_before)
        return (x, x0), None

    x = noise_bhwc.astype(jnp.float32)
    return jax.lax.scan(step, (x, jnp.zeros_like(x)), _on_device(steps))[0][0]


def _alphas(schedule: Schedule, times_s: np.ndarray) -> np.ndarray:
    """alpha-bar, float64, of timesteps of which those below 0 stand for the end of sampling."""
    table = alphas_cumprod(schedule).astype(np.float64)
    return np.where(times_s >= 0, table[times_s], 1.0 if schedule.set_alpha_to_one else table[0])


def _first_order_weights(now_s: np.ndarray, prev_s: np.ndarray, eta: float = 0.0) -> dict[str, np.ndarray]:
    """Weights (s,) in x_prev = to_x0 x0 + to_noise epsilon + std noise, from alpha-bar before and after each step.

    Eq. 12 and 16 of Song et al. 2021; signal and sigma are those of x before the step.
    """
    std_s = eta * np.sqrt((1 - prev_s) / (1 - now_s) * (1 - now_s / prev_s))
    return {
        "signal": np.sqrt(now_s),
        "sigma": np.sqrt(1 - now_s),
        "to_x0": np.sqrt(prev_s),
        "to_noise": np.sqrt(1 - prev_s - std_s**2),
        "std": std_s,
    }


def _first_order(
    schedule: Schedule,
    denoiser: Denoiser,
    x_bhwc: jax.Array,
    steps: dict[str, np.ndarray],
    draw: Callable[[jax.Array], jax.Array] | None,
) -> jax.Array:
    """Steps of `_first_order_weights`; `draw` gives a step's fresh noise from its index."""

    def step(x: jax.Array, s: dict[str, jax.Array]) -> tuple[jax.Array, None]:
        output = denoiser(x, s["time"]).astype(jnp.float32)
        x0, epsilon = denoised_and_noise(schedule, x, output, s["signal"], s["sigma"])
        x = s["to_x0"] * x0 + s["to_noise"] * epsilon
        return (x if draw is None else x + s["std"] * draw(s["index"])), None

    on_device = _on_device(steps) | {"index": jnp.arange(len(steps["time"]))}
    return jax.lax.scan(step, x_bhwc.astype(jnp.float32), on_device)[0]


def _euler(
    schedule: Schedule,
    denoiser: Denoiser,
    noise_bhwc: jax.Array,
    times_s: np.ndarray,
    levels_s: np.ndarray,
    draw: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Euler's step in x / signal is DDIM's step in x; the last level is 0. With `draw` it is ancestral (eta 1)."""
    alpha_s = 1 / (1 + np.append(levels_s, 0) ** 2)
    steps = {"time": times_s} | _first_order_weights(alpha_s[:-1], alpha_s[1:], 0.0 if draw is None else 1.0)
    # diffusers starts from pure noise of the first level; with leading spacing from that plus an image of noise
    scale = 1.0 if schedule.timestep_spacing == "leading" else steps["sigma"][0]
    return _first_order(schedule, denoiser, jnp.float32(scale) * noise_bhwc, steps, draw)


def _stream(name: str, noise_bhwc: jax.Array, key: jax.Array | None) -> Callable[[jax.Array], jax.Array]:
    """Standard normal noise of a step by its index, in each image from its own key of `key` (b,)."""
    if key is None:
        raise ValueError(f"{name} draws noise in every step: pass a key for each image")
    if key.shape != noise_bhwc.shape[:1]:
        raise ValueError(f"{name} needs one key an image, shape {noise_bhwc.shape[:1]}, got shape {key.shape}")

    def draw(index: jax.Array) -> jax.Array:
        return jax.vmap(lambda k: jax.random.normal(stream(k, name, index), noise_bhwc.shape[1:]))(key)

    return draw


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
    return {name: jnp.asarray(v, bool if v.dtype == bool else jnp.float32) for name, v in steps.items()}


SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "pndm": pndm,
    "euler": euler,
    "euler_karras": functools.partial(euler, karras=True),
    "euler_a": euler_ancestral,
    "dpm++2m": dpm_solver_pp_2m,
    "dpm++2m_karras": functools.partial(dpm_solver_pp_2m, karras=True),
}


def get_sampler(name: str) -> Sampler:
    """The sampler called `name`; raises ScheduleError naming the known ones."""
    if name not in SAMPLERS:
        raise ScheduleError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
