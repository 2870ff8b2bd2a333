"""Scaled dot-product attention with the formulation that is fast on the device at hand, and its Flax module.

Axes: b batch, q/k positions, n heads, d width of a head, c channels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.core.platform import platform
from cns_jax.nn.layers import Dense


def dot_product_attention(
    q_bqnd: jax.Array, k_bknd: jax.Array, v_bknd: jax.Array, mask_qk: jax.Array | None = None
) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v, (b, q, n, d). mask_qk: True where a query may look.

    On a CPU `jax.nn.dot_product_attention` is up to ten times slower than the plain products below, which
    normalize after the value product (a pass over q x d instead of q x k); elsewhere the library is used.
    """
    if platform() != "cpu":
        mask = None if mask_qk is None else mask_qk[None, None]
        return jax.nn.dot_product_attention(q_bqnd, k_bknd, v_bknd, mask=mask)
    b, q, n, d = q_bqnd.shape
    rows = lambda x: x.transpose(0, 2, 1, 3).reshape(b * n, x.shape[1], d)  # noqa: E731
    q_rqd, k_rkd, v_rkd = rows(q_bqnd), rows(k_bknd), rows(v_bknd)
    scores = jax.lax.batch_matmul(q_rqd * d**-0.5, k_rkd.transpose(0, 2, 1)).astype(jnp.float32)
    if mask_qk is not None:
        scores = jnp.where(mask_qk, scores, jnp.finfo(jnp.float32).min)
    # the shift by the maximum cancels in the quotient, so no gradient needs to flow through it
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    out = jax.lax.batch_matmul(weights.astype(v_rkd.dtype), v_rkd)
    out = out / weights.sum(-1, keepdims=True).astype(out.dtype)
    return out.reshape(b, n, q, d).transpose(0, 2, 1, 3)


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
        context = x_bqc if context_bkc is None else context_bkc
        inner = self.heads * self.head_dim
        dense = lambda name: Dense(inner, self.qkv_bias, self.dtype, name=name)  # noqa: E731
        q, k, v = dense("to_q")(x_bqc), dense("to_k")(context), dense("to_v")(context)
        if detach_begin:
            k, v = detach_first_token(k), detach_first_token(v)
        split = lambda x: x.reshape(*x.shape[:2], self.heads, self.head_dim)  # noqa: E731
        out = dot_product_attention(split(q), split(k), split(v))
        return Dense(self.channels, True, self.dtype, name="to_out.0")(out.reshape(*q.shape[:2], inner))
