"""One concept being learned: masked Adam, L_reg, prior loss and the token's row (eq. 7, 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from benchmarks.torch_reference.networks import kernels


@dataclass(frozen=True)
class Rates:
    """Hyperparameters of a lesson, as in cns_jax.methods.cns.CNS and cns_jax.engine.settings.TrainSettings."""

    lr_neurons: float
    lr_token: float
    lambda1: float
    lambda2: float
    snr_gamma: float = 0.0
    adam_epsilon: float = 1e-8


class TorchBatch(NamedTuple):
    """latents: scaled, NCHW; weight_b: of each image's loss; noise like latents; t: timesteps."""

    latents: Tensor
    ids_bl: Tensor
    weight_b: Tensor
    noise: Tensor
    t: Tensor


class Lesson:
    """unet, text: from `load_networks`; alphas_t: cumulative alphas of the noise schedule; row: of the concept's token;
    masks: its neurons; used: those of earlier concepts; start: W_{m-1}, where it is not what the UNet holds."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text: CLIPTextModel,
        alphas_t: Tensor,
        row: int,
        masks: Mapping[str, Tensor],
        used: Mapping[str, Tensor],
        rates: Rates,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.unet, self.text, self.rates, self.masks = unet, text, rates, masks
        self.rows, self.kernels = text.get_input_embeddings().rows, kernels(unet)
        self.row_r1 = (torch.arange(len(self.rows), device=self.rows.device) == row)[:, None]
        shared = {n: m & used[n] for n, m in masks.items()}
        self.base = {n: p.detach().clone() for n, p in self.kernels.items()}
        self.previous = dict(start or self.base)
        # L_reg's gradient is slope * W - offset, zero outside of the shared neurons
        lambda1, lambda2 = rates.lambda1, rates.lambda2
        self.slope = {n: 2 * (lambda1 + lambda2) * m.float() for n, m in shared.items()}
        self.offset = {n: 2 * (lambda1 * self.previous[n] + lambda2 * self.base[n]) * m for n, m in shared.items()}
        with torch.no_grad():
            for name, kernel in self.kernels.items():
                kernel.copy_(self.previous[name])
        self.signal, self.sigma, snr = alphas_t.sqrt(), (1 - alphas_t).sqrt(), alphas_t / (1 - alphas_t)
        self.weight_t = snr.clamp(max=rates.snr_gamma) / snr if rates.snr_gamma else torch.ones_like(snr)
        groups = [
            {"params": list(self.kernels.values()), "lr": rates.lr_neurons, "eps": rates.adam_epsilon},
            {"params": [self.rows], "lr": rates.lr_token},
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        on_gpu = self.rows.is_cuda
        self.autocast = torch.autocast(self.rows.device.type, torch.bfloat16, enabled=on_gpu)
        self.loss = torch.compile(self._loss) if on_gpu else self._loss

    def _loss(self, batch: TorchBatch) -> Tensor:
        signal, sigma = self.signal[batch.t, None, None, None], self.sigma[batch.t, None, None, None]
        noisy = signal * batch.latents + sigma * batch.noise
        with self.autocast:
            predicted = self.unet(noisy, batch.t, self.text(batch.ids_bl).last_hidden_state).sample
        error_b = (predicted.float() - batch.noise).square().mean((1, 2, 3))
        return (error_b * batch.weight_b * self.weight_t[batch.t]).sum()

    def gradients(self, batch: TorchBatch) -> Tensor:
        """The batch's loss; leaves its gradients and L_reg's in .grad, zero outside of masks and row."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        with torch.no_grad():
            for name, p in self.kernels.items():
                # zero gradients outside of the mask keep moments zero
                p.grad.mul_(self.masks[name]).addcmul_(p, self.slope[name]).sub_(self.offset[name])
            self.rows.grad.mul_(self.row_r1)
        return loss.detach()

    def step(self, batch: TorchBatch) -> Tensor:
        """One optimizer step; returns the loss before it."""
        loss = self.gradients(batch)
        self.optimizer.step()
        return loss
