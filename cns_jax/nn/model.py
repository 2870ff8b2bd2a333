"""Model: the static bundle of modules that the rest of the package calls; it holds no arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cns_jax.core.tree import Tree
from cns_jax.nn.clip import CLIPTextConfig, CLIPTextModel
from cns_jax.nn.unet import UNet2DConditionModel, UNetConfig
from cns_jax.nn.vae import AutoencoderKL, VAEConfig

PARTS = ("unet", "vae", "text_encoder")


@dataclass(frozen=True)
class Model:
    """Stable Diffusion's three networks. Hashable: pass it to `jax.jit` as a static argument.

    Parameters travel beside it as {"unet": ..., "vae": ..., "text_encoder": ...}. dtype: the compute dtype
    (None: that of the parameters). remat: keep only the inputs of the UNet's blocks for the backward pass and
    compute the rest again, about a third more work for a fraction of the memory.
    """

    unet: UNetConfig
    vae: VAEConfig
    text_encoder: CLIPTextConfig
    dtype: Any = None
    remat: bool = False

    @property
    def compute(self) -> str:
        """Name of the compute dtype, "float32" where parameters decide."""
        return jnp.dtype(self.dtype or jnp.float32).name

    def modules(self) -> dict[str, Any]:
        """Part name -> Flax module."""
        return {
            "unet": UNet2DConditionModel(self.unet, self.dtype, self.remat),
            "vae": AutoencoderKL(self.vae, self.dtype),
            "text_encoder": CLIPTextModel(self.text_encoder, self.dtype),
        }

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(h, w, c) of the latents of an image of height x width pixels."""
        factor = self.vae.downsampling
        return height // factor, width // factor, self.vae.latent_channels

    def init(self, key: jax.Array) -> dict[str, Tree]:
        """Randomly initialized float32 parameters of all parts."""
        size = self.vae.downsampling * 2 ** (len(self.unet.block_out_channels) - 1)
        inputs: dict[str, tuple[jax.Array, ...]] = {
            "unet": (
                jnp.zeros((1, *self.latent_shape(size, size)[:2], self.unet.in_channels)),
                jnp.zeros((1,), jnp.int32),
                jnp.zeros((1, 4, self.unet.cross_attention_dim)),
            ),
            "vae": (jnp.zeros((1, size, size, self.vae.in_channels)),),
            "text_encoder": (jnp.zeros((1, 4), jnp.int32),),
        }
        keys = dict(zip(PARTS, jax.random.split(key, len(PARTS)), strict=True))
        return {name: module.init(keys[name], *inputs[name])["params"] for name, module in self.modules().items()}

    def encode_text(
        self, params: Mapping[str, Any], ids_bl: jax.Array, concept_rows_rd: jax.Array | None = None
    ) -> jax.Array:
        """Hidden states (b, l, d), exactly as the UNet receives them. See CLIPTextModel for the concept rows."""
        return self.modules()["text_encoder"].apply({"params": params}, ids_bl, concept_rows_rd)

    def predict_noise(
        self,
        params: Mapping[str, Any],
        latents_bhwc: jax.Array,
        timesteps_b: jax.Array,
        text_bkd: jax.Array,
        detach_begin: bool = False,
    ) -> jax.Array:
        """The UNet's output (epsilon or v), shaped like the latents, with as many rows as the text (see UNet)."""
        unet = self.modules()["unet"]
        return unet.apply({"params": params}, latents_bhwc, timesteps_b, text_bkd, detach_begin)

    def encode_image(self, params: Mapping[str, Any], images_bhwc: jax.Array) -> jax.Array:
        """Images in [-1, 1] to unscaled moments (b, h, w, 2 * latent channels)."""
        vae = self.modules()["vae"]
        return vae.apply({"params": params}, images_bhwc, method=AutoencoderKL.encode)

    def decode(self, params: Mapping[str, Any], latents_bhwc: jax.Array) -> jax.Array:
        """Scaled latents to images in [-1, 1] (clipped)."""
        z = latents_bhwc / self.vae.scaling_factor
        images = self.modules()["vae"].apply({"params": params}, z, method=AutoencoderKL.decode)
        return jnp.clip(images, -1.0, 1.0)
