"""CLIP's text and image towers (Radford et al. 2021, arXiv:2103.00020), leaf for leaf as in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.nn.config import read_config
from cns_jax.nn.layers import Dense, Dtype, LayerNorm
from cns_jax.nn.ops.formulations import dot_product_attention, even, gelu, quick_gelu

_ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


@dataclass(frozen=True)
class CLIPTextConfig:
    """The fields of a text tower's config.json that change what is computed; defaults are transformers'."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    eos_token_id: int = 49407
    bos_token_id: int = 49406
    pad_token_id: int = 1

    @property
    def end_of_text(self) -> int:
        """Id of the end of text. OpenAI's files say 2, which is wrong; there it is the vocabulary's last."""
        return self.vocab_size - 1 if self.eos_token_id == 2 else self.eos_token_id

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> CLIPTextConfig:
        """From the dict of a config.json. Raises UnsupportedConfig naming the field that is not built here."""
        return read_config(cls, config, {"hidden_act": tuple(_ACTIVATIONS)})


@dataclass(frozen=True)
class CLIPVisionConfig:
    """The fields of an image tower's config.json that change what is computed; defaults are transformers'."""

    image_size: int = 224
    patch_size: int = 32
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    num_channels: int = 3

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> CLIPVisionConfig:
        """From the dict of a config.json. Raises UnsupportedConfig naming the field that is not built here."""
        return read_config(cls, config, {"hidden_act": tuple(_ACTIVATIONS)})


class SelfAttention(nn.Module):
    """Multi-head self-attention with CLIP's leaf names q_proj, k_proj, v_proj, out_proj."""

    heads: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_nc: jax.Array, length: int, causal: bool) -> jax.Array:
        c = x_nc.shape[-1]
        names = ("q_proj", "k_proj", "v_proj")
        shape = (-1, length, self.heads, c // self.heads)
        q, k, v = (Dense(c, True, self.dtype, name=name)(x_nc).reshape(shape) for name in names)
        out = dot_product_attention(q, k, v, causal).reshape(-1, c)
        return Dense(c, True, self.dtype, name="out_proj")(out)


class MLP(nn.Module):
    """fc1, activation, fc2."""

    width: int
    activation: str
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_nc: jax.Array) -> jax.Array:
        hidden = _ACTIVATIONS[self.activation](Dense(self.width, True, self.dtype, name="fc1")(x_nc))
        return Dense(x_nc.shape[-1], True, self.dtype, name="fc2")(hidden)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer, of rows: positions of sequences of `length` beneath each other."""

    config: CLIPTextConfig | CLIPVisionConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_nc: jax.Array, length: int, causal: bool) -> jax.Array:
        c = self.config
        norm = lambda name: LayerNorm(c.layer_norm_eps, self.dtype, name=name)  # noqa: E731
        attention = SelfAttention(c.num_attention_heads, self.dtype, name="self_attn")
        x_nc = x_nc + attention(norm("layer_norm1")(x_nc), length, causal)
        mlp = MLP(c.intermediate_size, c.hidden_act, self.dtype, name="mlp")
        return x_nc + mlp(norm("layer_norm2")(x_nc))


class Encoder(nn.Module):
    """The stack layers.0 .. layers.n-1."""

    config: CLIPTextConfig | CLIPVisionConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x_blc: jax.Array, causal: bool = False) -> jax.Array:
        x_nc = x_blc.reshape(-1, x_blc.shape[-1])
        for i in range(self.config.num_hidden_layers):
            x_nc = EncoderLayer(self.config, self.dtype, name=f"layers.{i}")(x_nc, x_blc.shape[1], causal)
        return x_nc.reshape(x_blc.shape)


class TextEmbeddings(nn.Module):
    """Token plus position embeddings; ids beyond the table are read from the concept rows."""

    config: CLIPTextConfig

    @nn.compact
    def __call__(self, ids_bl: jax.Array, concept_rows_rd: jax.Array | None) -> jax.Array:
        c = self.config
        table = nn.Embed(c.vocab_size, c.hidden_size, name="token_embedding")
        positions = nn.Embed(c.max_position_embeddings, c.hidden_size, name="position_embedding")
        tokens = table(jnp.minimum(ids_bl, c.vocab_size - 1))
        if concept_rows_rd is not None and concept_rows_rd.shape[0]:
            rows = jnp.take(concept_rows_rd, jnp.maximum(ids_bl - c.vocab_size, 0), axis=0)
            tokens = jnp.where((ids_bl >= c.vocab_size)[..., None], rows.astype(tokens.dtype), tokens)
        return tokens + positions(jnp.arange(ids_bl.shape[1]))[None]


class TextTransformer(nn.Module):
    """CLIP's causal text transformer."""

    config: CLIPTextConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, ids_bl: jax.Array, concept_rows_rd: jax.Array | None = None) -> jax.Array:
        x = TextEmbeddings(self.config, name="embeddings")(ids_bl, concept_rows_rd)
        x = x if self.dtype is None else x.astype(self.dtype)
        x = Encoder(self.config, self.dtype, name="encoder")(even(x), causal=True)
        x = x[:, : ids_bl.shape[1]]  # no token sees a later one
        return LayerNorm(self.config.layer_norm_eps, self.dtype, name="final_layer_norm")(x)


class CLIPTextModel(nn.Module):
    """Token ids to the hidden states (b, l, d) that the UNet attends to (after the final layer norm)."""

    config: CLIPTextConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, ids_bl: jax.Array, concept_rows_rd: jax.Array | None = None) -> jax.Array:
        """ids_bl: int32; an id of vocab_size + r reads row r of concept_rows_rd instead of the table."""
        return TextTransformer(self.config, self.dtype, name="text_model")(ids_bl, concept_rows_rd)


class CLIPTextModelWithProjection(nn.Module):
    """Token ids to the unnormalized text embedding (b, projection_dim), read at the first end-of-text token."""

    config: CLIPTextConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, ids_bl: jax.Array, concept_rows_rd: jax.Array | None = None) -> jax.Array:
        hidden = TextTransformer(self.config, self.dtype, name="text_model")(ids_bl, concept_rows_rd)
        end_b = jnp.argmax(ids_bl == self.config.end_of_text, axis=1)
        pooled = jnp.take_along_axis(hidden, end_b[:, None, None], axis=1)[:, 0]
        return Dense(self.config.projection_dim, False, self.dtype, name="text_projection")(pooled)


class VisionEmbeddings(nn.Module):
    """Class token and patches plus position embeddings."""

    config: CLIPVisionConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, images_bhwc: jax.Array) -> jax.Array:
        c = self.config
        b = images_bhwc.shape[0]
        token = self.param("class_embedding", nn.initializers.normal(0.02), (c.hidden_size,))
        patch = (c.patch_size, c.patch_size)
        conv = nn.Conv(c.hidden_size, patch, patch, "VALID", use_bias=False, dtype=self.dtype, name="patch_embedding")
        patches = conv(images_bhwc).reshape(b, -1, c.hidden_size)
        first = jnp.broadcast_to(token[None, None], (b, 1, c.hidden_size)).astype(patches.dtype)
        x = jnp.concatenate([first, patches], axis=1)
        positions = nn.Embed(x.shape[1], c.hidden_size, dtype=self.dtype, name="position_embedding")
        return x + positions(jnp.arange(x.shape[1]))[None]


class VisionTransformer(nn.Module):
    """CLIP's image transformer; returns the normalized class token (b, hidden_size)."""

    config: CLIPVisionConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, images_bhwc: jax.Array) -> jax.Array:
        norm = lambda name: LayerNorm(self.config.layer_norm_eps, self.dtype, name=name)  # noqa: E731
        x = VisionEmbeddings(self.config, self.dtype, name="embeddings")(images_bhwc)
        x = norm("pre_layrnorm")(x)  # sic: the checkpoints carry the misspelling
        x = Encoder(self.config, self.dtype, name="encoder")(x)
        return norm("post_layernorm")(x[:, 0])


class CLIPVisionModelWithProjection(nn.Module):
    """Images, normalized with CLIP's mean and std, to the unnormalized embedding (b, projection_dim)."""

    config: CLIPVisionConfig
    dtype: Dtype = None

    @nn.compact
    def __call__(self, images_bhwc: jax.Array) -> jax.Array:
        pooled = VisionTransformer(self.config, self.dtype, name="vision_model")(images_bhwc)
        return Dense(self.config.projection_dim, False, self.dtype, name="visual_projection")(pooled)
