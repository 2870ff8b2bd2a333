"""Layers shared by the UNet and the VAE. Images and feature maps are NHWC."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Dtype = jnp.dtype | None


class Dense(nn.Module):
    """A linear layer, kernel (in, out), applied to the rows of the input flattened to two dimensions.

    On a CPU the weight gradient of a product over two leading axes runs four times slower than that of one
    matrix product (measured at 64 x 64 x 128 -> 1024, jax 0.10).
    """

    features: int
    use_bias: bool = True
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        out = x.reshape(-1, x.shape[-1]) @ kernel
        if bias is not None:
            out = out + bias[None]
        return out.reshape(*x.shape[:-1], self.features)


def Conv(features: int, size: int, dtype: Dtype, name: str, stride: int = 1, pad: int | None = None) -> nn.Conv:
    """A square convolution, kernel (h, w, in, out), padded by size // 2 on every side unless told."""
    pad = size // 2 if pad is None else pad
    padding = ((pad, pad), (pad, pad))
    return nn.Conv(features, (size, size), (stride, stride), padding, dtype=dtype, name=name)


class GroupNorm(nn.Module):
    """Group normalization, statistics in float32 from a two-pass variance.

    Reduces over positions per channel first and combines the channels of a group afterwards: on a CPU that
    keeps the inner loop over contiguous channels, whatever the width of a group.
    """

    groups: int
    epsilon: float
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        c = x_bhwc.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        positions = tuple(range(1, x_bhwc.ndim - 1))
        x = x_bhwc.astype(jnp.float32)

        def per_group(stat_bc: jax.Array) -> jax.Array:
            mean = stat_bc.reshape(-1, self.groups, c // self.groups).mean(-1, keepdims=True)
            return jnp.broadcast_to(mean, (mean.shape[0], self.groups, c // self.groups)).reshape(-1, c)

        expand = lambda stat_bc: jnp.expand_dims(stat_bc, positions)  # noqa: E731
        centred = x - expand(per_group(x.mean(positions)))
        variance = per_group(jnp.square(centred).mean(positions))
        gain = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
        out = centred * expand(gain) + jnp.reshape(bias, (1,) * (x.ndim - 1) + (c,))
        return out.astype(self.dtype or x_bhwc.dtype)


def timestep_embedding(t_b: jax.Array, width: int, flip_sin_to_cos: bool, freq_shift: float) -> jax.Array:
    """Sinusoidal embedding (b, width) of timesteps, as in DDPM and diffusers' `Timesteps` (float32)."""
    half = width // 2
    exponent = -math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / (half - freq_shift)
    angles = t_b.astype(jnp.float32)[:, None] * jnp.exp(exponent)[None]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    return jnp.concatenate([cos, sin] if flip_sin_to_cos else [sin, cos], axis=-1)


class TimestepMLP(nn.Module):
    """time_embedding: linear, SiLU, linear."""

    width: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, emb_bc: jax.Array) -> jax.Array:
        hidden = nn.silu(Dense(self.width, True, self.dtype, name="linear_1")(emb_bc))
        return Dense(self.width, True, self.dtype, name="linear_2")(hidden)


class ResnetBlock(nn.Module):
    """ResnetBlock2D: two normalized convolutions, a timestep bias between them, and a (1x1) shortcut."""

    channels: int
    groups: int
    epsilon: float
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, temb_bc: jax.Array | None = None) -> jax.Array:
        norm = lambda name: GroupNorm(self.groups, self.epsilon, self.dtype, name=name)  # noqa: E731
        h = Conv(self.channels, 3, self.dtype, "conv1")(nn.silu(norm("norm1")(x_bhwc)))
        if temb_bc is not None:
            h = h + Dense(self.channels, True, self.dtype, name="time_emb_proj")(nn.silu(temb_bc))[:, None, None]
        h = Conv(self.channels, 3, self.dtype, "conv2")(nn.silu(norm("norm2")(h)))
        if x_bhwc.shape[-1] != self.channels:
            x_bhwc = Conv(self.channels, 1, self.dtype, "conv_shortcut")(x_bhwc)
        return x_bhwc + h


class Downsample(nn.Module):
    """Stride-2 convolution. The VAE pads (0, 1) below and right instead of 1 all round."""

    channels: int
    asymmetric: bool = False
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        if self.asymmetric:
            x_bhwc = jnp.pad(x_bhwc, ((0, 0), (0, 1), (0, 1), (0, 0)))
        return Conv(self.channels, 3, self.dtype, "conv", stride=2, pad=0 if self.asymmetric else 1)(x_bhwc)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement and a convolution. size: (h, w) to reach, twice the input by default."""

    channels: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
        b, h, w, c = x_bhwc.shape
        if size is None or size == (2 * h, 2 * w):
            x = jnp.broadcast_to(x_bhwc[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
        else:  # torch's "nearest" takes floor(i * in / out); jax.image.resize rounds from pixel centres
            x = x_bhwc[:, np.arange(size[0]) * h // size[0]][:, :, np.arange(size[1]) * w // size[1]]
        return Conv(self.channels, 3, self.dtype, "conv")(x)
