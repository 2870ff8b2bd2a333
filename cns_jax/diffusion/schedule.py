"""The forward process of variance-preserving diffusion and diffusers' scheduler_config.json.

Legend of shapes: b batch, h w c latent height, width, channels, T training timesteps, s sampling steps.
A noise level is sigma / signal, the standard deviation of the noise beside an unscaled image.
Source: Ho et al. 2020 (arXiv:2006.11239); v-prediction: Salimans and Ho 2022 (arXiv:2202.00512).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BETA_SCHEDULES = ("scaled_linear", "linear")
PREDICTION_TYPES = ("epsilon", "v_prediction")
SPACINGS = ("leading", "linspace", "trailing")

# settings which change the result and are not implemented, with the value that switches them off
_OFF: dict[str, Any] = {
    "trained_betas": None,
    "clip_sample": False,
    "thresholding": False,
    "rescale_betas_zero_snr": False,
}


# our samplers as diffusers knows them: scheduler class and the settings that make it this sampler.
# Where a class stands twice, the first entry is what it means without those settings
_DIFFUSERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {"use_karras_sigmas": False}),
    "euler_karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpm++2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}

# like _OFF, of one class only: each class ignores the settings of the others, which its files may hold too
_LEVELS_OFF: dict[str, Any] = {
    "final_sigmas_type": "zero",
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "sigma_min": None,
    "sigma_max": None,
}
_OFF_IN_CLASS: dict[str, dict[str, Any]] = {
    "EulerDiscreteScheduler": _LEVELS_OFF | {"interpolation_type": "linear", "timestep_type": "discrete"},
    "DPMSolverMultistepScheduler": _LEVELS_OFF
    | {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "lambda_min_clipped": -np.inf}
    | {"use_lu_lambdas": False, "use_flow_sigmas": False, "variance_type": None},
}


class ScheduleError(ValueError):
    """A scheduler setting that is unknown or that the samplers cannot honour."""


@dataclass(frozen=True)
class Schedule:
    """Settings of the noise schedule under diffusers' names; hashable, a static argument of jit.

    timestep_spacing None leaves the choice to the sampler (DDIM and PNDM leading, Euler and DPM-Solver++
    linspace, as in diffusers); so a value here holds for every sampler. Defaults: Stable Diffusion 1.x and 2.x.
    Raises ScheduleError for a value outside the tuples above.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    prediction_type: str = "epsilon"
    steps_offset: int = 1
    timestep_spacing: str | None = None
    set_alpha_to_one: bool = False

    def __post_init__(self) -> None:
        _one_of("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        _one_of("prediction_type", self.prediction_type, PREDICTION_TYPES)
        _one_of("timestep_spacing", self.timestep_spacing, (None, *SPACINGS))
        if self.num_train_timesteps < 1 or not 0 < self.beta_start <= self.beta_end < 1:
            raise ScheduleError(
                f"need num_train_timesteps >= 1 and 0 < beta_start <= beta_end < 1, got "
                f"{self.num_train_timesteps}, {self.beta_start}, {self.beta_end}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """From the dict of a scheduler_config.json; absent keys take diffusers' defaults.

        Keys of one sampler only (solver_order, use_karras_sigmas, ...) are not part of a schedule; which
        sampler the file means is told by `sampler_of_config`.
        Raises ScheduleError for settings that would change the result and are not implemented here.
        """
        kind = config.get("_class_name")
        # these two clip unless told otherwise, which no latent model wants
        given = {"clip_sample": kind in ("DDIMScheduler", "DDPMScheduler"), **config}
        for name, off in _OFF.items():
            _one_of(name, given.get(name, off), (off,))
        defaults: dict[str, Any] = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
        defaults |= {"steps_offset": 0, "set_alpha_to_one": kind != "PNDMScheduler"}
        known = {f.name for f in fields(cls)}
        return cls(**(defaults | {key: value for key, value in config.items() if key in known}))

    def to_config(self, name: str = "ddim") -> dict[str, Any]:
        """The dict of a scheduler_config.json with which diffusers samples as we do.

        name: one of our samplers, or a diffusers class, which means the first of our samplers that it is.
        Raises ScheduleError naming the known ones.
        """
        of_class = {kind: sampler for sampler, (kind, _) in reversed(_DIFFUSERS.items())}
        _one_of("sampler or scheduler class", name, (*_DIFFUSERS, *of_class))
        kind, settings = _DIFFUSERS[of_class.get(name, name)]
        config = {key: value for key, value in asdict(self).items() if value is not None}
        return {"_class_name": kind, "clip_sample": False, "trained_betas": None, **settings, **config}


def sampler_of_config(config: Mapping[str, Any]) -> str:
    """Which of our samplers the dict of a scheduler_config.json means; absent keys take diffusers' defaults.

    Raises ScheduleError for another class, and for a setting of the sampler that would change the result and
    is not implemented. Settings of the schedule are checked by `Schedule.from_config`.
    """
    kind = config.get("_class_name")
    _one_of("_class_name", kind, tuple(dict.fromkeys(known for known, _ in _DIFFUSERS.values())))
    for field, off in _OFF_IN_CLASS.get(str(kind), {}).items():
        # diffusers takes null for false
        _one_of(field, config.get(field, off), (off, None) if off is False else (off,))
    supported = [(name, settings) for name, (known, settings) in _DIFFUSERS.items() if known == kind]
    for name, settings in supported:
        if all(bool(config.get(field, False)) == value for field, value in settings.items()):
            return name
    field, value = next(iter(supported[0][1].items()))
    raise ScheduleError(f"{field} of {kind} is {config.get(field, False)!r}; supported: {value!r}")


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ScheduleError(f"{name} is {value!r}; supported: {', '.join(map(repr, allowed))}")


@functools.lru_cache(maxsize=16)
def _alphas_cumprod(schedule: Schedule) -> np.ndarray:
    start, end, count = schedule.beta_start, schedule.beta_end, schedule.num_train_timesteps
    if schedule.beta_schedule == "scaled_linear":
        betas = _linspace(start**0.5, end**0.5, count) ** 2
    else:
        betas = _linspace(start, end, count)
    # torch's float32 cumprod accumulates in float64
    table = np.cumprod(np.float32(1) - betas, dtype=np.float64).astype(np.float32)
    table.setflags(write=False)
    return table


def _linspace(start: float, end: float, count: int) -> np.ndarray:
    """torch.linspace in float32 to the last bit: from both ends to the middle, each value rounded once."""
    first, last = np.float64(np.float32(start)), np.float64(np.float32(end))
    step = np.float64((np.float32(end) - np.float32(start)) / np.float32(max(count - 1, 1)))
    index = np.arange(count)
    rising, falling = first + step * index, last - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)


def alphas_cumprod(schedule: Schedule) -> np.ndarray:
    """alpha-bar of every training timestep, float32 (T,), read-only, on the host."""
    return _alphas_cumprod(schedule)


def signal_and_noise(schedule: Schedule, timesteps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sqrt(alpha-bar) and sqrt(1 - alpha-bar) of int32 timesteps in [0, T), float32, shape of `timesteps`."""
    alpha = jnp.asarray(alphas_cumprod(schedule))[timesteps]
    return jnp.sqrt(alpha), jnp.sqrt(1 - alpha)


def add_noise(schedule: Schedule, latents_bhwc: jax.Array, noise_bhwc: jax.Array, timesteps_b: jax.Array) -> jax.Array:
    """Forward process q(x_t | x_0), eq. 4 of Ho et al. 2020.

    latents_bhwc: already multiplied by the VAE's scaling factor. noise_bhwc: standard normal, same shape and
    dtype. timesteps_b: int32 in [0, T). Returns x_t in the dtype of the latents.
    """
    signal_b111, sigma_b111 = _per_image(schedule, timesteps_b, latents_bhwc.dtype)
    return signal_b111 * latents_bhwc + sigma_b111 * noise_bhwc


def target(schedule: Schedule, latents_bhwc: jax.Array, noise_bhwc: jax.Array, timesteps_b: jax.Array) -> jax.Array:
    """What the model is trained to output: the noise (epsilon), or v = signal * noise - sigma * latents."""
    if schedule.prediction_type == "epsilon":
        return noise_bhwc
    signal_b111, sigma_b111 = _per_image(schedule, timesteps_b, latents_bhwc.dtype)
    return signal_b111 * noise_bhwc - sigma_b111 * latents_bhwc


def min_snr_weights(schedule: Schedule, timesteps_b: jax.Array, gamma: float) -> jax.Array:
    """Weight of each timestep's squared error, (b,): min(snr, gamma) / snr for epsilon, / (snr + 1) for v.

    Hang et al. 2023 (arXiv:2303.09556). It quiets timesteps of little noise, where fine detail rules, so that
    colours and shapes, decided at much noise, are learned sooner. gamma 0 weighs all alike (1).
    """
    if gamma == 0:
        return jnp.ones(timesteps_b.shape)
    signal_b, sigma_b = signal_and_noise(schedule, timesteps_b)
    snr_b = jnp.square(signal_b / sigma_b)
    return jnp.minimum(snr_b, gamma) / (snr_b if schedule.prediction_type == "epsilon" else snr_b + 1)


def _per_image(schedule: Schedule, timesteps_b: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    signal_b, sigma_b = signal_and_noise(schedule, timesteps_b)
    return signal_b[:, None, None, None].astype(dtype), sigma_b[:, None, None, None].astype(dtype)


def denoised_and_noise(
    schedule: Schedule, x: jax.Array, output: jax.Array, signal: jax.Array, sigma: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(x_0, epsilon) that the model output implies at x = signal * x_0 + sigma * epsilon.

    signal, sigma: scalars with signal**2 + sigma**2 = 1.
    """
    if schedule.prediction_type == "epsilon":
        return (x - sigma * output) / signal, output
    return signal * x - sigma * output, signal * output + sigma * x


def inference_timesteps(schedule: Schedule, num_steps: int, default_spacing: str) -> np.ndarray:
    """Training timesteps a one-output-per-interval sampler visits, int32 (s,), falling.

    Table 2 of Lin et al. 2023 (arXiv:2305.08891), rounded as diffusers' DDIM and PNDM do.
    """
    total, spacing = _checked(schedule, num_steps, default_spacing)
    steps: np.ndarray
    if spacing == "linspace":
        steps = np.linspace(0, total - 1, num_steps).round()[::-1]
    elif spacing == "leading":
        steps = (np.arange(num_steps) * (total // num_steps))[::-1] + schedule.steps_offset
    else:
        steps = _trailing(total, num_steps)
    return _in_range(schedule, steps)


def fractional_timesteps(schedule: Schedule, num_steps: int, default_spacing: str) -> np.ndarray:
    """Like `inference_timesteps` for Euler, which leaves linspace unrounded: float32 (s,), falling."""
    total, spacing = _checked(schedule, num_steps, default_spacing)
    if spacing == "linspace":
        return np.linspace(0, total - 1, num_steps, dtype=np.float32)[::-1]
    return inference_timesteps(schedule, num_steps, spacing).astype(np.float32)


def multistep_timesteps(schedule: Schedule, num_steps: int, default_spacing: str) -> np.ndarray:
    """Like `inference_timesteps` for DPM-Solver: num_steps + 1 points, of which the last is left out."""
    total, spacing = _checked(schedule, num_steps, default_spacing)
    steps: np.ndarray
    if spacing == "linspace":
        steps = np.linspace(0, total - 1, num_steps + 1).round()[::-1][:-1]
    elif spacing == "leading":
        steps = (np.arange(num_steps + 1) * (total // (num_steps + 1)))[::-1][:-1] + schedule.steps_offset
    else:
        steps = _trailing(total, num_steps)
    return _in_range(schedule, steps)


def noise_levels(schedule: Schedule, timesteps_s: np.ndarray | None = None) -> np.ndarray:
    """Noise level of each timestep, linear between whole ones, float64 (s,); without timesteps of all T, rising."""
    alpha = alphas_cumprod(schedule).astype(np.float64)
    levels = np.sqrt((1 - alpha) / alpha)
    return levels if timesteps_s is None else np.interp(timesteps_s, np.arange(len(levels)), levels)


def timesteps_of_levels(schedule: Schedule, levels_s: np.ndarray) -> np.ndarray:
    """The timestep of each noise level, linear in the level's logarithm between whole ones, float64 (s,)."""
    log_levels = np.log(noise_levels(schedule))
    return np.interp(np.log(levels_s), log_levels, np.arange(len(log_levels)))


def karras_levels(first: float, last: float, num_steps: int, rho: float = 7.0) -> np.ndarray:
    """Noise levels evenly apart in their rho-th root, eq. 5 of Karras et al. 2022 (arXiv:2206.00364); (s,)."""
    return np.linspace(first ** (1 / rho), last ** (1 / rho), num_steps) ** rho


def _trailing(total: int, num_steps: int) -> np.ndarray:
    # cut: for 62 of the counts up to 1000, arange rounds to one value too many, timestep -1
    return np.round(np.arange(total, 0, -total / num_steps)[:num_steps]) - 1


def _checked(schedule: Schedule, num_steps: int, default_spacing: str) -> tuple[int, str]:
    if not 1 <= num_steps <= schedule.num_train_timesteps:
        raise ScheduleError(f"num_steps is {num_steps}; it must be from 1 to {schedule.num_train_timesteps}")
    return schedule.num_train_timesteps, schedule.timestep_spacing or default_spacing


def _in_range(schedule: Schedule, steps: np.ndarray) -> np.ndarray:
    total = schedule.num_train_timesteps
    if np.any(np.diff(steps) >= 0):
        raise ScheduleError(f"{len(steps)} steps visit a timestep of {total} twice; use fewer steps")
    if steps.max() >= total:
        raise ScheduleError(
            f"{len(steps)} steps with steps_offset {schedule.steps_offset} reach {int(steps.max())}, "
            f"the last timestep is {total - 1}; use fewer steps or a smaller offset"
        )
    return steps.astype(np.int32)
