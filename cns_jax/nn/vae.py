"""AutoencoderKL: images to the moments of a diagonal Gaussian over latents, and latents back to images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.config import read_config
from cns_jax.nn.layers import Conv, Dense, Downsample, Dtype, GroupNorm, ResnetBlock, Upsample
from cns_jax.nn.ops.formulations import dot_product_attention

_EPSILON = 1e-6

_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "shift_factor": (None, 0, 0.0),
    "latents_mean": (None,),
    "latents_std": (None,),
}


@dataclass(frozen=True)
class VAEConfig:
    """The fields of a VAE's config.json that change what is computed; defaults are diffusers'."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 0.18215
    mid_block_add_attention: bool = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> VAEConfig:
        """From the dict of a config.json. Raises UnsupportedConfig naming the field that is not built here."""
        levels = len(config.get("block_out_channels", (64,)))
        kinds = {
            "down_block_types": (("DownEncoderBlock2D",) * levels,),
            "up_block_types": (("UpDecoderBlock2D",) * levels,),
        }
        return read_config(cls, config, _FIXED | kinds)

    @property
    def downsampling(self) -> int:
        """Pixels per latent along a side."""
        return 2 ** (len(self.block_out_channels) - 1)


class MidAttention(nn.Module):
    """Single-head self-attention over the positions of a feature map, with its own norm and residual."""

    groups: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        b, h, w, c = x_bhwc.shape
        x_nc = GroupNorm(self.groups, _EPSILON, self.dtype, name="group_norm")(x_bhwc).reshape(-1, c)
        project = lambda name, x_nc: Dense(c, True, self.dtype, name=name)(x_nc)  # noqa: E731
        q, k, v = (project(name, x_nc).reshape(b, h * w, 1, c) for name in ("to_q", "to_k", "to_v"))
        out_nc = dot_product_attention(q, k, v).reshape(-1, c)
        return x_bhwc + project("to_out.0", out_nc).reshape(x_bhwc.shape)


class MidBlock(nn.Module):
    """ResNet, attention, ResNet at the coarsest level."""

    config: VAEConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        c, groups = x_bhwc.shape[-1], self.config.norm_num_groups
        x = ResnetBlock(c, groups, _EPSILON, self.dtype, name="resnets.0")(x_bhwc)
        if self.config.mid_block_add_attention:
            x = MidAttention(groups, self.dtype, name="attentions.0")(x)
        return ResnetBlock(c, groups, _EPSILON, self.dtype, name="resnets.1")(x)


class Level(nn.Module):
    """ResNet blocks, then a change of resolution: "down", "up" or none."""

    channels: int
    layers: int
    groups: int
    resample: str | None
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.layers):
            x = ResnetBlock(self.channels, self.groups, _EPSILON, self.dtype, name=f"resnets.{i}")(x)
        if self.resample == "down":
            return Downsample(self.channels, asymmetric=True, dtype=self.dtype, name="downsamplers.0")(x)
        if self.resample == "up":
            return Upsample(self.channels, self.dtype, name="upsamplers.0")(x)
        return x


class Encoder(nn.Module):
    """Images to features of twice the latent channels."""

    config: VAEConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = Conv(c.block_out_channels[0], 3, self.dtype, name="conv_in")(x)
        last = len(c.block_out_channels) - 1
        for i, channels in enumerate(c.block_out_channels):
            resample = None if i == last else "down"
            level = Level(
                channels, c.layers_per_block, c.norm_num_groups, resample, self.dtype, name=f"down_blocks.{i}"
            )
            x = level(x)
        x = MidBlock(c, self.dtype, name="mid_block")(x)
        x = GroupNorm(c.norm_num_groups, _EPSILON, self.dtype, True, name="conv_norm_out")(x)
        return Conv(2 * c.latent_channels, 3, self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """Latents to images."""

    config: VAEConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = Conv(c.block_out_channels[-1], 3, self.dtype, name="conv_in")(x)
        x = MidBlock(c, self.dtype, name="mid_block")(x)
        last = len(c.block_out_channels) - 1
        for i, channels in enumerate(reversed(c.block_out_channels)):
            resample = None if i == last else "up"
            layers = c.layers_per_block + 1
            x = Level(channels, layers, c.norm_num_groups, resample, self.dtype, name=f"up_blocks.{i}")(x)
        x = GroupNorm(c.norm_num_groups, _EPSILON, self.dtype, True, name="conv_norm_out")(x)
        return Conv(c.out_channels, 3, self.dtype, name="conv_out")(x)


class AutoencoderKL(nn.Module):
    """The VAE of Stable Diffusion (Kingma & Welling 2014; Rombach et al. 2022), leaf for leaf as in diffusers."""

    config: VAEConfig
    dtype: Dtype = None

    def setup(self) -> None:
        latent = self.config.latent_channels
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)
        self.quant_conv = Conv(2 * latent, 1, self.dtype)
        self.post_quant_conv = Conv(latent, 1, self.dtype)

    def encode(self, images_bhwc: jax.Array) -> jax.Array:
        """Images in [-1, 1] to moments (b, h/f, w/f, 2 * latent channels): mean, log variance in [-30, 20]."""
        mean, logvar = jnp.split(self.quant_conv(self.encoder(images_bhwc)), 2, axis=-1)
        return jnp.concatenate([mean, jnp.clip(logvar, -30.0, 20.0)], axis=-1)

    def decode(self, z_bhwc: jax.Array) -> jax.Array:
        """Unscaled latents to images around [-1, 1]."""
        return self.decoder(self.post_quant_conv(z_bhwc))

    def __call__(self, images_bhwc: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Moments, and the images decoded from their mean; `init` reaches every leaf through it."""
        moments = self.encode(images_bhwc)
        return moments, self.decode(jnp.split(moments, 2, axis=-1)[0])


def sample_moments(key: jax.Array, moments_bhwc: jax.Array) -> jax.Array:
    """A draw from the encoder's Gaussian, unscaled, (b, h, w, latent channels)."""
    shape = (*moments_bhwc.shape[:-1], moments_bhwc.shape[-1] // 2)
    return at_noise(moments_bhwc, jax.random.normal(key, shape, moments_bhwc.dtype))


def at_noise(moments_bhwc: jax.Array, noise_bhwc: jax.Array) -> jax.Array:
    """z = mean + std * noise of the encoder's Gaussian; half the channels of the moments."""
    mean, logvar = jnp.split(moments_bhwc, 2, axis=-1)
    return mean + jnp.exp(0.5 * logvar) * noise_bhwc
