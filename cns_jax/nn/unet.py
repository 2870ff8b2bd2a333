"""UNet2DConditionModel: predicts the noise (or v) in latents, given a timestep and the text's hidden states.

Follows Ho et al. 2020 (arXiv:2006.11239) and Rombach et al. 2022 (arXiv:2112.10752) as diffusers builds them,
leaf for leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.attention import Context
from cns_jax.nn.config import UnsupportedConfig, per_level, read_config
from cns_jax.nn.layers import (
    Conv,
    Downsample,
    Dtype,
    GroupNorm,
    ResnetBlock,
    TimestepMLP,
    Upsample,
    repeated,
    timestep_embedding,
)
from cns_jax.nn.transformer import SpatialTransformer

_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}

_FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "mid_block_scale_factor": (1, 1.0),
    "downsample_padding": (1,),
    "act_fn": ("silu", "swish"),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "addition_embed_type": (None,),
    "addition_embed_type_num_heads": (64, None),
    "encoder_hid_dim": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "cross_attention_norm": (None,),
    "dropout": (0, 0.0),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "mid_block_only_cross_attention": (None, False),
    "reverse_transformer_layers_per_block": (None,),
}


@dataclass(frozen=True)
class UNetConfig:
    """The fields of a UNet's config.json that change what is computed; defaults are diffusers'."""

    in_channels: int = 4
    out_channels: int = 4
    sample_size: int = 64
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8
    num_attention_heads: int | tuple[int, ...] | None = None
    use_linear_projection: bool = False
    upcast_attention: bool = False  # softmax is computed in float32 in any case; kept for other readers

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> UNetConfig:
        """From the dict of a config.json. Raises UnsupportedConfig naming the field that is not built here."""
        built = read_config(cls, config, _FIXED)
        unknown = set(built.down_block_types) - set(_DOWN) | set(built.up_block_types) - set(_UP)
        if unknown:
            raise UnsupportedConfig(f"UNet block types {sorted(unknown)} are not supported")
        levels = len(built.block_out_channels)
        if not len(built.down_block_types) == len(built.up_block_types) == levels:
            raise UnsupportedConfig(f"block types and block_out_channels {built.block_out_channels} differ in length")
        return built

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads a level. diffusers' `attention_head_dim` is, by an old misnomer, their number."""
        heads = self.num_attention_heads or self.attention_head_dim
        return per_level(heads, len(self.block_out_channels), "attention_head_dim")

    @property
    def layers(self) -> tuple[int, ...]:
        """ResNet blocks a level on the way down."""
        return per_level(self.layers_per_block, len(self.block_out_channels), "layers_per_block")

    @property
    def depths(self) -> tuple[int, ...]:
        """Transformer blocks in each spatial transformer, a level."""
        field = "transformer_layers_per_block"
        return per_level(self.transformer_layers_per_block, len(self.block_out_channels), field)


class Block(nn.Module):
    """One level: ResNet blocks, each followed by a spatial transformer if the level attends, and resampling."""

    config: UNetConfig
    level: int
    layers: int
    attends: bool
    dtype: Dtype = None
    remat: bool = False

    def resnet(self, index: int) -> ResnetBlock:
        """The index-th ResNet block of this level."""
        c = self.config
        channels = c.block_out_channels[self.level]
        kind = nn.remat(ResnetBlock) if self.remat else ResnetBlock
        return kind(channels, c.norm_num_groups, c.norm_eps, self.dtype, name=f"resnets.{index}")

    def transformer(self, index: int) -> SpatialTransformer:
        """The index-th spatial transformer of this level."""
        c = self.config
        # argument 3 of __call__, detach_begin, is a plain bool
        kind = nn.remat(SpatialTransformer, static_argnums=(3,)) if self.remat else SpatialTransformer
        return kind(
            c.block_out_channels[self.level],
            c.heads[self.level],
            c.depths[self.level],
            c.norm_num_groups,
            c.use_linear_projection,
            self.dtype,
            name=f"attentions.{index}",
        )


class DownBlock(Block):
    """A level on the way down."""

    last: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, temb: jax.Array, text: Context, detach_begin: bool
    ) -> tuple[jax.Array, list[jax.Array]]:
        skips = []
        for i in range(self.layers):
            x = self.resnet(i)(x, temb)
            if self.attends:
                x = self.transformer(i)(x, text, detach_begin)
            skips.append(x)
        if not self.last:
            x = Downsample(x.shape[-1], dtype=self.dtype, name="downsamplers.0")(x)
            skips.append(x)
        return x, skips


class MidBlock(Block):
    """ResNet, transformer, ResNet at the coarsest level."""

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array, text: Context, detach_begin: bool) -> jax.Array:
        x = self.resnet(0)(x, temb)
        x = self.transformer(0)(x, text, detach_begin)
        return self.resnet(1)(x, temb)


class UpBlock(Block):
    """A level on the way up; takes its skips from the end of the list."""

    last: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, skips: list[jax.Array], temb: jax.Array, text: Context, detach_begin: bool
    ) -> jax.Array:
        skips = list(skips)
        size: tuple[int, int] | None = None
        for i in range(self.layers):
            x = self.resnet(i)(jnp.concatenate([x, repeated(skips.pop(), len(x))], axis=-1), temb)
            if self.attends:
                x = self.transformer(i)(x, text, detach_begin)
        if not self.last:
            # odd sizes: the next level's skips decide how far to enlarge, as diffusers' forward_upsample_size
            size = (skips[-1].shape[1], skips[-1].shape[2]) if skips else None
            x = Upsample(x.shape[-1], self.dtype, name="upsamplers.0")(x, size)
        return x


class UNet2DConditionModel(nn.Module):
    """The denoiser. Leaves are named as in diffusers' UNet2DConditionModel."""

    config: UNetConfig
    dtype: Dtype = None
    remat: bool = False

    @nn.compact
    def __call__(
        self, latents_bhwc: jax.Array, timesteps_b: jax.Array, text_bkd: jax.Array, detach_begin: bool = False
    ) -> jax.Array:
        """Noise (or v) prediction with the shape of the latents.

        latents_bhwc: scaled latents; timesteps_b: (b,); text_bkd: the text encoder's hidden states. Text may have
        several rows for one of the latents, beside each other, and so has what comes out: until the first
        cross-attention they are one row's work.
        detach_begin: no gradient through the key and value of text position 0.
        """
        c = self.config
        widths, levels = c.block_out_channels, len(c.block_out_channels)
        common: dict[str, Any] = {"config": c, "dtype": self.dtype, "remat": self.remat}
        sinusoid = timestep_embedding(timesteps_b, widths[0], c.flip_sin_to_cos, c.freq_shift)
        sinusoid = sinusoid.astype(latents_bhwc.dtype)
        temb = TimestepMLP(4 * widths[0], self.dtype, name="time_embedding")(sinusoid)

        x = Conv(widths[0], 3, self.dtype, name="conv_in")(latents_bhwc)
        skips, text = [x], Context.of(text_bkd)
        for i, kind in enumerate(c.down_block_types):
            block = DownBlock(
                **common,
                level=i,
                layers=c.layers[i],
                attends=_DOWN[kind],
                last=i == levels - 1,
                name=f"down_blocks.{i}",
            )
            x, new = block(x, temb, text, detach_begin)
            skips += new
        x = MidBlock(**common, level=levels - 1, layers=2, attends=True, name="mid_block")(x, temb, text, detach_begin)
        for i, kind in enumerate(c.up_block_types):
            level = levels - 1 - i
            layers = c.layers[level] + 1
            block_up = UpBlock(
                **common, level=level, layers=layers, attends=_UP[kind], last=level == 0, name=f"up_blocks.{i}"
            )
            # a level that enlarges also sees the skips after its own: only their size is read
            x = block_up(x, skips, temb, text, detach_begin)
            del skips[-layers:]
        x = GroupNorm(c.norm_num_groups, c.norm_eps, self.dtype, True, name="conv_norm_out")(x)
        return Conv(c.out_channels, 3, self.dtype, name="conv_out")(x)
