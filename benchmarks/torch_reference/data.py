"""Batches of a lesson from moments that were encoded once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.torch_reference.lesson import TorchBatch


def sample_moments(moments: Tensor) -> Tensor:
    """A draw from the VAE's Gaussians, (n, 2c, h, w) to (n, c, h, w)."""
    mean, logvar = moments.chunk(2, 1)
    return mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * torch.randn_like(mean)


@dataclass(frozen=True)
class Views:
    """A concept's views and prior images, on the device. moments: unscaled; priors: scaled latents."""

    moments_v2chw: Tensor
    ids_l: Tensor
    priors_nchw: Tensor
    prior_ids_l: Tensor
    scaling_factor: float
    batch: int
    prior_batch: int
    prior_weight: float
    timesteps: int = 1000

    def draw(self) -> TorchBatch:
        """Views first, then prior images, as cns_jax.engine.teach.step.draw."""
        device = self.moments_v2chw.device
        view = torch.randint(len(self.moments_v2chw), (self.batch,), device=device)
        prior = torch.randint(len(self.priors_nchw), (self.prior_batch,), device=device)
        scaled = sample_moments(self.moments_v2chw[view]) * self.scaling_factor
        latents = torch.cat([scaled, self.priors_nchw[prior]])
        ids = torch.cat([self.ids_l.expand(self.batch, -1), self.prior_ids_l.expand(self.prior_batch, -1)])
        weight = torch.full((len(latents),), 1.0 / self.batch, device=device)
        weight[self.batch :] = self.prior_weight / max(self.prior_batch, 1)
        t = torch.randint(self.timesteps, (len(latents),), device=device)
        return TorchBatch(latents, ids, weight, torch.randn_like(latents), t)
