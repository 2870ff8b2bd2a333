"""Files that other tools load beside a base model: a full-rank LoRA-style difference of the cross-attention K/V
weights, Custom Diffusion's attention processors, and textual-inversion embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.weights.layout import to_file
from cns_jax.weights.low_rank import lora_module


def difference_tensors(base: Mapping[str, Any], kernels: Mapping[str, Any], dtype: Any) -> dict[str, np.ndarray]:
    """lora_unet_<module>.diff = trained - base, (out, in): what ComfyUI and A1111 add, times the strength.

    base, kernels: the cross-attention K/V kernels (float32), nested as in the UNet's parameters.
    """
    before, out = flatten(base), {}
    for name, kernel in flatten(kernels).items():
        out[f"{lora_module(name)}.diff"] = to_file(name, np.asarray(kernel) - np.asarray(before[name])).astype(dtype)
    return out


def bundled_embeddings(rows: Mapping[str, np.ndarray], dtype: Any) -> dict[str, np.ndarray]:
    """Embeddings inside a LoRA file, as A1111 reads them: prompt word -> row (d,)."""
    return {f"bundle_emb.{word}.string_to_param.*": row[None].astype(dtype) for word, row in rows.items()}


def custom_diffusion_tensors(unet_keys: Iterable[str], kernels: Mapping[str, Any], dtype: Any) -> dict[str, np.ndarray]:
    """What diffusers' `unet.load_attn_procs` reads: K and V of every cross-attention, and an empty tensor for every
    self-attention, whose processor stays untrained.

    unet_keys: all dotted names of the UNet's leaves.
    """
    out = {}
    for name, kernel in flatten(kernels).items():
        module, _, projection = name.removesuffix(".kernel").rpartition(".")
        out[f"{module}.processor.{projection}_custom_diffusion.weight"] = to_file(name, np.asarray(kernel)).astype(
            dtype
        )
    for name in unet_keys:
        if name.endswith(".attn1.to_q.kernel"):
            out[name.removesuffix(".to_q.kernel") + ".processor"] = np.zeros((0,), dtype)
    return out


def embedding_tensors(token: str, row_d: np.ndarray, dtype: Any) -> dict[str, np.ndarray]:
    """One token's embedding (d,) under its own name; diffusers, ComfyUI, A1111 and InvokeAI take the only tensor of a
    file. InvokeAI tells SD-1.x from 2.x by its first axis, so it has no other."""
    return {token: np.asarray(row_d).astype(dtype)}
