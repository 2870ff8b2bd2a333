"""The importance of a weight for a prompt: its magnitude times the norm of the text feature it reads (eq. 3).

Axes: i input features (text width), o output units, b captions, l positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cns_jax.core.tree import Tree, select

_KEYS_AND_VALUES = ("attn2.to_k.kernel", "attn2.to_v.kernel")


def cross_attention_kernels(unet_params: Mapping[str, Any]) -> Tree:
    """The sub-tree of all cross-attention key and value kernels, each (in, out): what CNS may train."""
    return select(unet_params, is_cross_attention_kernel)


def is_cross_attention_kernel(name: str) -> bool:
    """Whether the leaf of this dotted name is a cross-attention key or value kernel."""
    return name.endswith(_KEYS_AND_VALUES)


@jax.jit
def feature_norms(hidden_bli: jax.Array, mask_bl: jax.Array) -> jax.Array:
    """L2 norm of every text feature over the positions of mask_bl, float32 (b, i).

    hidden_bli: the text encoder's output exactly as the UNet receives it.
    """
    squares = jnp.square(hidden_bli.astype(jnp.float32)) * mask_bl[..., None]
    return jnp.sqrt(squares.sum(axis=1))


def scores(kernel_io: jax.Array, norms_i: jax.Array) -> jax.Array:
    """S[i, o] = |W[i, o]| * n[i] (eq. 3 of Liao et al. 2025, after Wanda, arXiv:2306.11695).

    Scores are compared within one output unit o. Compared along the inputs' other axis, n would cancel and
    the selection would not depend on the prompt.
    """
    return jnp.abs(kernel_io.astype(jnp.float32)) * norms_i[:, None]
