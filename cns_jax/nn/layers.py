"""Layers shared by the UNet and the VAE. Images and feature maps are NHWC."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError

from cns_jax.core.mesh import of_whole_kernel
from cns_jax.nn.ops.convolutions import convolution, enlarged_convolution
from cns_jax.nn.ops.formulations import group_norm, layer_norm, linear, silu

Dtype = jnp.dtype | None


def parameter(module: nn.Module, name: str, initializer: Callable[..., jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Same as flax's `param`, except that a parameter which exists is only read: flax traces the initializer to check
    the shape, which was a quarter of the time that tracing a training step took. Raises flax's ScopeParamShapeError."""
    if not module.has_variable("params", name):
        return module.param(name, initializer, shape)
    value: jax.Array = module.get_variable("params", name)
    if value.shape != shape:
        raise ScopeParamShapeError(name, "/".join(module.path), value.shape, shape)
    return value


lecun_normal = jax.jit(nn.initializers.lecun_normal(), static_argnums=1)
"""Of kernels."""


def repeated(x: jax.Array, rows: int, length: int = 1) -> jax.Array:
    """x with every `length` rows repeated in place to `rows` rows in all; x itself if it has as many. x's rows divide
    `rows`."""
    if len(x) == rows:
        return x
    return jnp.repeat(x.reshape(-1, length, *x.shape[1:]), rows // len(x), axis=0).reshape(rows, *x.shape[1:])


def plus(x: jax.Array, bias_c: jax.Array) -> jax.Array:
    """x (..., c) and a bias of its channels."""
    return x + jax.lax.broadcast_in_dim(bias_c, x.shape, (x.ndim - 1,))


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
        kernel = parameter(self, "kernel", lecun_normal, (x.shape[-1], self.features))
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        out = of_whole_kernel(linear, x.reshape(-1, x.shape[-1]), kernel)
        if bias is not None:
            out = plus(out, bias)
        return out.reshape(*x.shape[:-1], self.features)


class Conv(nn.Module):
    """A square convolution, kernel (h, w, in, out), padded by size // 2 on every side unless told (pad).

    One of size 1 takes rows (n, c) as well. enlarged: of 3 x 3, over the input at twice its size, nearest neighbours.
    """

    features: int
    size: int
    dtype: Dtype = None
    stride: int = 1
    pad: int | None = None
    enlarged: bool = False

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x_bhwc.shape[-1], self.features)
        kernel = parameter(self, "kernel", lecun_normal, shape)
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
        x_bhwc, kernel, bias = nn.dtypes.promote_dtype(x_bhwc, kernel, bias, dtype=self.dtype)
        pad = self.size // 2 if self.pad is None else self.pad
        convolve = enlarged_convolution if self.enlarged else partial(convolution, stride=self.stride, pad=pad)
        return plus(of_whole_kernel(convolve, x_bhwc, kernel), bias)


class GroupNorm(nn.Module):
    """Group normalization over all positions, in float32, of x + shift (b, c) if there is one; activated: then SiLU."""

    groups: int
    epsilon: float
    dtype: Dtype = None
    activated: bool = False

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, shift_bc: jax.Array | None = None) -> jax.Array:
        b, *_, c = x_bhwc.shape
        scale = parameter(self, "scale", nn.initializers.ones, (c,))
        bias = parameter(self, "bias", nn.initializers.zeros, (c,))
        x_bnc = x_bhwc.reshape(b, -1, c)
        out = group_norm(x_bnc, scale, bias, self.groups, self.epsilon, self.activated, shift_bc)
        return out.reshape(x_bhwc.shape).astype(self.dtype or x_bhwc.dtype)


class LayerNorm(nn.Module):
    """Normalization over the last axis, in float32."""

    epsilon: float
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        scale = parameter(self, "scale", nn.initializers.ones, (c,))
        bias = parameter(self, "bias", nn.initializers.zeros, (c,))
        out = layer_norm(x.reshape(-1, c), scale.astype(jnp.float32), bias.astype(jnp.float32), self.epsilon)
        return out.reshape(x.shape).astype(self.dtype or x.dtype)


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
        hidden = silu(Dense(self.width, True, self.dtype, name="linear_1")(emb_bc))
        return Dense(self.width, True, self.dtype, name="linear_2")(hidden)


class ResnetBlock(nn.Module):
    """ResnetBlock2D: two normalized convolutions, a timestep bias between them, and a (1x1) shortcut."""

    channels: int
    groups: int
    epsilon: float
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, temb_bc: jax.Array | None = None) -> jax.Array:
        norm = lambda name: GroupNorm(self.groups, self.epsilon, self.dtype, True, name=name)  # noqa: E731
        h = Conv(self.channels, 3, self.dtype, name="conv1")(norm("norm1")(x_bhwc))
        shift_bc = None
        if temb_bc is not None:
            shift_bc = Dense(self.channels, True, self.dtype, name="time_emb_proj")(silu(temb_bc))
            shift_bc = repeated(shift_bc, len(h))
        h = Conv(self.channels, 3, self.dtype, name="conv2")(norm("norm2")(h, shift_bc))
        if x_bhwc.shape[-1] != self.channels:
            x_bhwc = Conv(self.channels, 1, self.dtype, name="conv_shortcut")(x_bhwc)
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
        return Conv(self.channels, 3, self.dtype, name="conv", stride=2, pad=0 if self.asymmetric else 1)(x_bhwc)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement and a convolution. size: (h, w) to reach, twice the input by default."""

    channels: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, size: tuple[int, int] | None = None) -> jax.Array:
        _, h, w, _ = x_bhwc.shape
        twice = size is None or size == (2 * h, 2 * w)
        if size is not None and not twice:
            # torch's "nearest" takes floor(i * in / out); jax.image.resize rounds from pixel centres
            x_bhwc = x_bhwc[:, np.arange(size[0]) * h // size[0]][:, :, np.arange(size[1]) * w // size[1]]
        return Conv(self.channels, 3, self.dtype, enlarged=twice, name="conv")(x_bhwc)
