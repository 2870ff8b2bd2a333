"""The attention module of UNet and VAE.

Axes: b batch, q/k positions, c channels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.formulations import dot_product_attention, even
from cns_jax.nn.layers import Dense


def detach_first_token(x_bkc: jax.Array) -> jax.Array:
    """Identity whose gradient is zero at position 0 (the begin token), as in Custom Diffusion's processor."""
    first = jax.lax.stop_gradient(x_bkc[:, :1])
    return jnp.concatenate([first, x_bkc[:, 1:]], axis=1)


class Attention(nn.Module):
    """Self- or cross-attention with diffusers' leaf names to_q, to_k, to_v, to_out.0.

    heads x head_dim is the inner width; channels the width of the output.
    """

    heads: int
    head_dim: int
    channels: int
    qkv_bias: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_bqc: jax.Array, context_bkc: jax.Array | None = None, detach_begin: bool = False) -> jax.Array:
        """x_bqc: queries; context_bkc: keys and values (None: x itself). Returns (b, q, channels).

        detach_begin: let no gradient through the key and value of context position 0.
        """
        context = x_bqc if context_bkc is None else even(context_bkc)
        inner = self.heads * self.head_dim
        dense = lambda name: Dense(inner, self.qkv_bias, self.dtype, name=name)  # noqa: E731
        q, k, v = dense("to_q")(x_bqc), dense("to_k")(context), dense("to_v")(context)
        if detach_begin:
            k, v = detach_first_token(k), detach_first_token(v)
        split = lambda x: x.reshape(*x.shape[:2], self.heads, self.head_dim)  # noqa: E731
        keys = None if context_bkc is None else context_bkc.shape[1]
        out = dot_product_attention(split(q), split(k), split(v), keys=keys)
        return Dense(self.channels, True, self.dtype, name="to_out.0")(out.reshape(*q.shape[:2], inner))
