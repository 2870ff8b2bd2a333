"""A low-rank approximation of what was taught: the truncated singular value decomposition of each K/V difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.weights.layout import file_key, to_file

_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


def lora_module(name: str) -> str:
    """kohya's name of the module that a kernel belongs to: lora_unet_mid_block_attentions_0_..._attn2_to_k."""
    return "lora_unet_" + file_key(name).removesuffix(".weight").replace(".", "_")


def low_rank_tensors(
    base: Mapping[str, Any], kernels: Mapping[str, Any], rank: int, dtype: Any
) -> dict[str, np.ndarray]:
    """An ordinary LoRA under kohya's names: a kernel's lora_up (out, r), lora_down (r, in), and alpha = r, so that
    up @ down is added as it is.

    base, kernels: the cross-attention K/V kernels (float32) before and after, nested as in the UNet's parameters.
    rank: r, at most the smaller side of a kernel. Of all matrices of that rank this one is nearest to the difference.
    """
    before, out = flatten(base), dict[str, np.ndarray]()
    for name, kernel in flatten(kernels).items():
        difference = to_file(name, np.asarray(kernel) - np.asarray(before[name]))
        left, singular, right = np.linalg.svd(difference, full_matrices=False)
        r, root = min(rank, len(singular)), np.sqrt(singular)
        module = lora_module(name)
        # the root on both sides: float16 holds neither 1e-8 nor 1e5
        out[module + _UP] = (left[:, :r] * root[:r]).astype(dtype)
        out[module + _DOWN] = (root[:r, None] * right[:r]).astype(dtype)
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
