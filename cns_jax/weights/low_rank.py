"""A low-rank approximation of what was taught: of each K/V difference the nearest one in what prompts read of it.

A change D moves keys and values by X D, of energy tr(D^T C D) with C = X^T X / n. With H = (C + mu I)^(1/2) and the
singular value decomposition H D = U S V^T, H^-1 U_r S_r V_r^T is the nearest change of rank r in that sense
(Eckart and Young 1936). Without C, all directions of text-feature space count alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.weights.layout import file_key, to_file
from cns_jax.weights.shared_basis import roots

_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


def lora_module(name: str) -> str:
    """kohya's name of the module that a kernel belongs to: lora_unet_mid_block_attentions_0_..._attn2_to_k."""
    return "lora_unet_" + file_key(name).removesuffix(".weight").replace(".", "_")


def low_rank_tensors(
    base: Mapping[str, Any], kernels: Mapping[str, Any], rank: int, dtype: Any, weighing_dd: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """An ordinary LoRA under kohya's names: a kernel's lora_up (out, r), lora_down (r, in), and alpha = r, so that
    up @ down is added as it is.

    base, kernels: the cross-attention K/V kernels (float32) before and after, nested as in the UNet's parameters.
    rank: r, at most the smaller side of a kernel. weighing_dd: C in any unit, of the text features that count (None:
    all directions alike).
    """
    before, out = flatten(base), dict[str, np.ndarray]()
    root_dd, inverse_dd = roots(len(next(iter(before.values()))), weighing_dd)
    for name, kernel in flatten(kernels).items():
        change = np.asarray(kernel, np.float64) - np.asarray(before[name], np.float64)
        left, singular, right = np.linalg.svd(root_dd @ change, full_matrices=False)
        r = min(rank, len(singular))
        down, up = (inverse_dd @ left[:, :r]) * singular[:r], right[:r]
        # the same size on both sides: float16 holds neither 1e-8 nor 1e5
        evened = np.sqrt(np.linalg.norm(down, axis=0))
        module = lora_module(name)
        out[module + _UP] = to_file(name, evened[:, None] * up).astype(dtype)
        out[module + _DOWN] = to_file(name, down / np.where(evened > 0, evened, 1)).astype(dtype)
        out[module + _ALPHA] = np.asarray(r, dtype)
    return out


def approximated(base: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Dotted kernel name -> what a program makes of the base model's kernel with `low_rank_tensors`, float32."""
    out = {}
    for name, kernel in flatten(base).items():
        module = lora_module(name)
        up, down = (tensors[module + end].astype(np.float32) for end in (_UP, _DOWN))
        out[name] = np.asarray(kernel) + to_file(name, up @ down)  # a linear layer's axes swap either way
    return out
