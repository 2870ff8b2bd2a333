"""Stable Diffusion's networks from a model folder, with a token table that grows and Custom Diffusion's attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel


class GrownEmbedding(nn.Module):
    """A frozen token table with trained rows after its end."""

    def __init__(self, table: Tensor, rows_rd: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.rows = nn.Parameter(rows_rd)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (b, l) to embeddings (b, l, d)."""
        count = len(self.table)  # two lookups: the table is not copied, and only the rows have a gradient
        known, taught = (
            F.embedding(i, t)
            for i, t in ((ids.clamp(max=count - 1), self.table), ((ids - count).clamp(min=0), self.rows))
        )
        return torch.where((ids < count)[..., None], known, taught)


class DetachedBegin:
    """Attention by PyTorch's own function; no gradient through key and value of the prompt's first token."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        """As diffusers calls a processor: (b, q, c) and (b, k, d) to (b, q, c)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if encoder_hidden_states is not None:
            k, v = (torch.cat([x[:, :1].detach(), x[:, 1:]], 1) for x in (k, v))
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def kernels(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The cross-attention K/V weights, (out, in), by name."""
    return {n: p for n, p in unet.named_parameters() if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}


def load_networks(folder: Path, rows_rd: Tensor, device: torch.device) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """UNet and text encoder, frozen but for the K/V weights and the token rows, which stay float32; on a GPU the frozen
    weights are bfloat16, so that autocast need not cast them in every call, and channels last."""
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32)
    unet.requires_grad_(False).to(device).set_attn_processor(DetachedBegin())
    text.requires_grad_(False)
    text.set_input_embeddings(GrownEmbedding(text.get_input_embeddings().weight.detach(), rows_rd.clone()))
    text.to(device)
    for kernel in kernels(unet).values():
        kernel.requires_grad_(True)
    if device.type == "cuda":
        unet.to(memory_format=torch.channels_last)
        for network in (unet, text):
            halve(network)
    return unet, text


def load_vae(folder: Path, device: torch.device) -> AutoencoderKL:
    """Frozen and channels last, which on a CPU makes it a tenth faster (the UNet slower); on a GPU bfloat16."""
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").requires_grad_(False).to(device)
    vae.to(memory_format=torch.channels_last)
    if device.type == "cuda":
        halve(vae)
    return vae


def halve(network: nn.Module) -> None:
    """Frozen parameters to bfloat16, what trains and buffers as they are."""
    for parameter in network.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()


def cumulative_alphas(folder: Path, device: torch.device) -> Tensor:
    """Of the model's noise schedule, by timestep."""
    return DDPMScheduler.from_pretrained(folder, subfolder="scheduler").alphas_cumprod.to(device)
