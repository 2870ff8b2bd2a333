"""Sampling with classifier-free guidance as one doubled batch and diffusers' DPM-Solver++(2M)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor


@torch.no_grad()
def sample_latents(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    scheduler: DPMSolverMultistepScheduler,
    text_bld: Tensor,
    negative_1ld: Tensor,
    noise: Tensor,
    steps: int,
    guidance_scale: float,
) -> Tensor:
    """Scaled latents like noise (NCHW). predict: (latents, timestep, text) -> noise, on the doubled batch."""
    scheduler.set_timesteps(steps, device=noise.device)
    text = torch.cat([negative_1ld.expand_as(text_bld), text_bld])
    x = noise
    for t in scheduler.timesteps:
        without, with_text = predict(torch.cat([x, x]), t, text).float().chunk(2)
        x = scheduler.step(without + guidance_scale * (with_text - without), t, x).prev_sample
    return x
