"""The attention module of the UNet.

Axes: b sequences, q/k positions, n rows: the positions of all sequences beneath each other, c channels. Between layers
lie rows, since linear layers and norms take matrices: XLA moves a reshape past one operation in each of its passes over
the whole program.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.layers import Dense
from cns_jax.nn.ops.formulations import dot_product_attention, even


def detach_first_token(x_bknd: jax.Array) -> jax.Array:
    """Identity whose gradient is zero at position 0 (the begin token), as in Custom Diffusion's processor."""
    first = jax.lax.stop_gradient(x_bknd[:, :1])
    return jnp.concatenate([first, x_bknd[:, 1:]], axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Context:
    """Sequences that are attended to. length: rows that each has, of which the first `own` count."""

    rows_nc: jax.Array
    length: int = field(metadata={"static": True})
    own: int = field(metadata={"static": True})

    @classmethod
    def of(cls, x_bkc: jax.Array) -> Context:
        """Of sequences as they come, of `even` length."""
        evened = even(x_bkc)
        return cls(evened.reshape(-1, x_bkc.shape[-1]), evened.shape[1], x_bkc.shape[1])

    @property
    def count(self) -> int:
        """Sequences."""
        return self.rows_nc.shape[0] // self.length


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
    def __call__(
        self, x_nc: jax.Array, length: int, context: Context | None = None, detach_begin: bool = False
    ) -> jax.Array:
        """x_nc: queries of sequences of `length`; context: keys and values (None: x itself). Returns (n, channels).

        detach_begin: let no gradient through the key and value of context position 0.
        """
        context = context or Context(x_nc, length, length)
        inner = self.heads * self.head_dim

        def project(name: str, x_nc: jax.Array, length: int) -> jax.Array:
            rows = Dense(inner, self.qkv_bias, self.dtype, name=name)(x_nc)
            return rows.reshape(-1, length, self.heads, self.head_dim)

        q = project("to_q", x_nc, length)
        k, v = (project(name, context.rows_nc, context.length) for name in ("to_k", "to_v"))
        if detach_begin:
            k, v = detach_first_token(k), detach_first_token(v)
        out = dot_product_attention(q, k, v, keys=context.own).reshape(-1, inner)
        return Dense(self.channels, True, self.dtype, name="to_out.0")(out)
