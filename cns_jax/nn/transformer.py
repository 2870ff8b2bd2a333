"""The UNet's spatial transformer: self-attention, cross-attention to the text, gated feed-forward."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.attention import Attention, Context
from cns_jax.nn.layers import Conv, Dense, Dtype, GroupNorm, LayerNorm, repeated
from cns_jax.nn.ops.formulations import gated_gelu


class FeedForward(nn.Module):
    """GEGLU feed-forward of inner width 4 x channels (leaves net.0.proj, net.2)."""

    channels: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_nc: jax.Array) -> jax.Array:
        hidden = Dense(8 * self.channels, True, self.dtype, name="net.0.proj")(x_nc)
        value, gate = jnp.split(hidden, 2, axis=-1)
        return Dense(self.channels, True, self.dtype, name="net.2")(gated_gelu(value, gate))


class BasicTransformerBlock(nn.Module):
    """norm1 + attn1 (self), norm2 + attn2 (cross), norm3 + ff, each residual, of rows (see `attention`).

    Where text has several prompts for one of x's sequences, what comes out has one for each prompt.
    """

    channels: int
    heads: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_nc: jax.Array, length: int, text: Context, detach_begin: bool) -> jax.Array:
        norm = lambda name: LayerNorm(1e-5, self.dtype, name=name)  # noqa: E731
        attention = lambda name: Attention(  # noqa: E731
            self.heads, self.channels // self.heads, self.channels, dtype=self.dtype, name=name
        )
        x_nc = x_nc + attention("attn1")(norm("norm1")(x_nc), length)
        x_nc = repeated(x_nc, text.count * length, length)
        x_nc = x_nc + attention("attn2")(norm("norm2")(x_nc), length, text, detach_begin)
        return x_nc + FeedForward(self.channels, self.dtype, name="ff")(norm("norm3")(x_nc))


class SpatialTransformer(nn.Module):
    """Transformer2DModel over the h*w positions of a feature map (continuous input)."""

    channels: int
    heads: int
    layers: int
    groups: int
    linear_projection: bool
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, text: Context, detach_begin: bool) -> jax.Array:
        _, h, w, c = x_bhwc.shape

        def project(name: str) -> nn.Module:
            if self.linear_projection:
                return Dense(c, True, self.dtype, name=name)
            return Conv(c, 1, self.dtype, name=name)

        x_nc = GroupNorm(self.groups, 1e-6, self.dtype, name="norm")(x_bhwc).reshape(-1, c)
        x_nc = project("proj_in")(x_nc)
        for i in range(self.layers):
            block = BasicTransformerBlock(c, self.heads, self.dtype, name=f"transformer_blocks.{i}")
            x_nc = block(x_nc, h * w, text, detach_begin)
        return repeated(x_bhwc, text.count) + project("proj_out")(x_nc).reshape(-1, h, w, c)
