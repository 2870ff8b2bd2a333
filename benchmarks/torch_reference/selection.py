"""Which weights belong to a concept (Liao et al., ICCV 2025, eq. 3 to 6). Weights are PyTorch's, (out, in)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Masks = dict[str, Tensor]


def feature_norms(hidden_bld: Tensor, mask_bl: Tensor) -> Tensor:
    """L2 norm of every text feature over the positions of the mask, (b, d)."""
    return (hidden_bld.float().square() * mask_bl[..., None]).sum(1).sqrt()


def top_inputs(scores_oi: Tensor, ratio: float) -> Tensor:
    """True at the floor(ratio * in) highest scores of every output unit."""
    keep = int(ratio * scores_oi.shape[1] + 1e-9)  # 0.29 * 100 is 28.999... in binary
    order = torch.topk(scores_oi, keep, dim=1, sorted=False).indices
    return torch.zeros_like(scores_oi, dtype=torch.bool).scatter_(1, order, True)


def selected(weights: Mapping[str, Tensor], norms_bi: Tensor, ratio: float) -> Masks:
    """The weights that every caption selects (eq. 4, 5)."""
    out = {}
    for name, weight in weights.items():
        mask, size = torch.ones_like(weight, dtype=torch.bool), weight.abs()
        for norms_i in norms_bi:
            mask &= top_inputs(size * norms_i, ratio)
        out[name] = mask
    return out


@torch.no_grad()
def concept_neurons(weights: Mapping[str, Tensor], captions_bi: Tensor, calibration_ki: Tensor, ratio: float) -> Masks:
    """What all captions select and not all calibration prompts (eq. 6). norms: from `feature_norms`."""
    base, general = selected(weights, captions_bi, ratio), selected(weights, calibration_ki, ratio)
    return {name: base[name] & ~general[name] for name in base}
