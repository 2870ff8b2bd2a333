"""The miniature's VAE: reconstruct the world and more than the world, through an 8 x 8 bottleneck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.rng import stream
from cns_jax.engine.pretrain.loop import train
from cns_jax.engine.pretrain.settings import PretrainSettings
from cns_jax.nn.vae import AutoencoderKL, VAEConfig, sample_moments


def to_float(images_u8: jax.Array) -> jax.Array:
    """uint8 0..255 to float32 in [-1, 1]."""
    return images_u8.astype(jnp.float32) / 127.5 - 1.0


def textures(key: jax.Array, count: int, size: int) -> jax.Array:
    """Random colour gradients with waves and smooth noise, (count, size, size, 3) in [-1, 1].

    They fill the colour space that the world leaves empty, so that photographs survive the bottleneck.
    """
    ramp = jnp.linspace(-1.0, 1.0, size)
    y, x = ramp[None, :, None, None], ramp[None, None, :, None]
    draw = lambda name, *shape: jax.random.normal(stream(key, name), (count, *shape))  # noqa: E731
    plane = draw("base", 1, 1, 3) + x * draw("x", 1, 1, 3) * 0.5 + y * draw("y", 1, 1, 3) * 0.5
    angle = draw("fx", 1, 1, 1) * 6 * x + draw("fy", 1, 1, 1) * 6 * y + 3 * draw("phase", 1, 1, 1)
    stripes = jnp.tanh(3 * jnp.sin(angle)) * draw("stripe", 1, 1, 3) * 0.4
    smooth = jax.image.resize(draw("noise", 8, 8, 3), (count, size, size, 3), "cubic") * 0.3
    return jnp.tanh(0.8 * (plane + stripes + smooth))


def collages(key: jax.Array, images: jax.Array) -> jax.Array:
    """World pictures with permuted and scaled colour channels, cut and joined along a random line."""
    b, h, w, _ = images.shape
    order = jax.random.permutation(stream(key, "order"), 3)
    gain = jax.random.uniform(stream(key, "gain"), (b, 1, 1, 3), minval=0.4, maxval=1.0)
    recoloured = images[..., order] * gain
    cut = jax.random.randint(stream(key, "cut"), (b, 1, 1, 1), 0, w)
    return jnp.where(jnp.arange(w)[None, None, :, None] < cut, recoloured, jnp.flip(images, 0))


def reconstruction_loss(recon: jax.Array, images: jax.Array) -> jax.Array:
    """L1, plus L1 of the image gradients (sharp edges), plus L2 of 4 x 4 means (true colours)."""
    difference = recon - images
    edges = sum(jnp.abs(jnp.diff(difference, axis=axis)).mean() for axis in (1, 2))
    b, h, w, c = images.shape
    coarse = difference.reshape(b, h // 4, 4, w // 4, 4, c).mean((2, 4))
    return jnp.abs(difference).mean() + 0.5 * edges + 4.0 * jnp.square(coarse).mean()


def train_vae(settings: PretrainSettings, images_u8: np.ndarray, directory: Path) -> tuple[VAEConfig, Any]:
    """Train the VAE and set its scaling factor so that latents of the world have unit variance."""
    config = VAEConfig.from_dict(settings.vae.model)
    module = AutoencoderKL(config)
    world = settings.vae.batch * 3 // 4
    size = images_u8.shape[1]
    params = module.init(jax.random.key(settings.seed), jnp.zeros((1, size, size, 3)))["params"]

    def loss(params: Any, key: jax.Array, data: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        index = jax.random.randint(stream(key, "batch"), (world,), 0, data.shape[0])
        drawn = to_float(data[index])
        extra = settings.vae.batch - world
        half = extra // 2
        mixed = collages(stream(key, "collage"), drawn[:half])
        images = jnp.concatenate([drawn, mixed, textures(stream(key, "texture"), extra - half, size)])
        moments = module.apply({"params": params}, images, method=AutoencoderKL.encode)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        z = sample_moments(stream(key, "sample"), moments)
        recon = module.apply({"params": params}, z, method=AutoencoderKL.decode)
        kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar).mean()
        value = reconstruction_loss(recon, images)
        l1 = jnp.abs(recon - images)[:world].mean()
        return value + settings.kl_weight * kl, {"l1": l1, "kl": kl}

    params = train("vae", settings.vae, directory, params, loss, jnp.asarray(images_u8), settings.seed)
    moments = encode_all(config, params, images_u8[:2048])
    latents = sample_moments(jax.random.key(0), jnp.asarray(moments))
    scaled = dict(settings.vae.model, scaling_factor=round(1.0 / float(latents.std()), 5))
    return VAEConfig.from_dict(scaled), params


def encode_all(config: VAEConfig, params: Any, images_u8: np.ndarray, batch: int = 64) -> np.ndarray:
    """Unscaled moments of all images, float32 (n, h, w, 2 * latent channels)."""
    module = AutoencoderKL(config)
    encode = jax.jit(lambda p, x: module.apply({"params": p}, to_float(x), method=AutoencoderKL.encode))
    out = []
    for start in range(0, len(images_u8), batch):
        part = images_u8[start : start + batch]
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
        out.append(np.asarray(encode(params, jnp.asarray(padded)))[: len(part)])
    return np.concatenate(out)
