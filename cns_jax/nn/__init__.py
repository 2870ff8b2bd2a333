"""Flax modules of Stable Diffusion: UNet, VAE and the CLIP towers, driven by diffusers' config.json fields."""
