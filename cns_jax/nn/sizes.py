"""The models that need no config.json: Stable Diffusion 1.5 and 2.1."""

from __future__ import annotations

from cns_jax.nn.clip import CLIPTextConfig
from cns_jax.nn.model import Model
from cns_jax.nn.unet import UNetConfig
from cns_jax.nn.vae import VAEConfig

_VAE = VAEConfig(
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    sample_size=512,
)

SD15 = Model(
    UNetConfig(cross_attention_dim=768, attention_head_dim=8),
    _VAE,
    CLIPTextConfig(hidden_size=768, intermediate_size=3072, projection_dim=768),
)
"""Stable Diffusion 1.x: 859.5 M UNet weights, CLIP ViT-L/14's text tower."""

SD21 = Model(
    UNetConfig(
        sample_size=96,
        cross_attention_dim=1024,
        attention_head_dim=(5, 10, 20, 20),
        use_linear_projection=True,
        upcast_attention=True,
    ),
    _VAE,
    CLIPTextConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        hidden_act="gelu",
        pad_token_id=0,
    ),
)
"""Stable Diffusion 2.x: OpenCLIP ViT-H/14's text tower without its last layer."""
