"""The miniature's VAE: reconstruct the world and more than the world, through a 16 x 16 bottleneck."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.batches import in_batches
from cns_jax.core.rng import stream
from cns_jax.core.xla.compiling import jit
from cns_jax.engine.pretrain.loop import Loss, train
from cns_jax.engine.pretrain.settings import PretrainSettings, StageSettings
from cns_jax.nn.vae import AutoencoderKL, VAEConfig, sample_moments


def to_float(images_u8: jax.Array) -> jax.Array:
    """uint8 0..255 to float32 in [-1, 1]."""
    return images_u8.astype(jnp.float32) / 127.5 - 1.0


def patterns(key: jax.Array, count: int, size: int) -> jax.Array:
    """Soft masks of stripes, checks and dots of random angle, period and contrast, (count, size, size, 1) in [0, 1]."""
    draw = lambda name, low, high: jax.random.uniform(stream(key, name), (count, 1, 1), minval=low, maxval=high)  # noqa: E731
    y, x = jnp.arange(size, dtype=jnp.float32)[None, :, None], jnp.arange(size, dtype=jnp.float32)[None, None, :]
    angle, frequency = draw("angle", 0.0, jnp.pi), 2 * jnp.pi / jnp.exp(draw("period", jnp.log(5.0), jnp.log(40.0)))
    along = jnp.sin(frequency * (x * jnp.cos(angle) + y * jnp.sin(angle)) + draw("phase", 0.0, 6.3))
    across = jnp.sin(frequency * (y * jnp.cos(angle) - x * jnp.sin(angle)) + draw("shift", 0.0, 6.3))
    kind = jax.random.randint(stream(key, "kind"), (count, 1, 1), 0, 3)
    wave = jnp.select([kind == 0, kind == 1], [along, 2 * along * across], along + across - 0.8)
    return jax.nn.sigmoid(wave * jnp.exp(draw("contrast", 0.5, 3.0)))[..., None]


def textures(key: jax.Array, count: int, size: int) -> jax.Array:
    """Two random colour gradients with smooth noise, mixed by a pattern, (count, size, size, 3) in [-1, 1].

    They fill the colours and patterns that the world leaves empty, so that new concepts and photographs survive
    the bottleneck.
    """
    ramp = jnp.linspace(-1.0, 1.0, size)
    y, x = ramp[None, :, None, None], ramp[None, None, :, None]

    def gradient(key: jax.Array) -> jax.Array:
        draw = lambda name, *shape: jax.random.normal(stream(key, name), (count, *shape))  # noqa: E731
        plane = draw("base", 1, 1, 3) + x * draw("x", 1, 1, 3) * 0.4 + y * draw("y", 1, 1, 3) * 0.4
        smooth = jax.image.resize(draw("noise", 8, 8, 3), (count, size, size, 3), "cubic") * 0.3
        return jnp.tanh(plane + smooth)

    mask = patterns(stream(key, "mask"), count, size)
    return mask * gradient(stream(key, "one")) + (1 - mask) * gradient(stream(key, "two"))


def collages(key: jax.Array, images: jax.Array) -> jax.Array:
    """World pictures with permuted and scaled colours, each mixed with its neighbour by a pattern."""
    b, size, _, _ = images.shape
    order = jax.random.permutation(stream(key, "order"), 3)
    gain = jax.random.uniform(stream(key, "gain"), (b, 1, 1, 3), minval=0.4, maxval=1.0)
    mask = patterns(stream(key, "mask"), b, size)
    return mask * images + (1 - mask) * jnp.roll(images[..., order] * gain, 1, axis=0)


def windows(key: jax.Array, images_u8: jax.Array, count: int, side: int) -> jax.Array:
    """Random windows of random pictures, (count, side, side, 3) in [-1, 1]."""
    n, height, width, _ = images_u8.shape
    corner = lambda name, room: jax.random.randint(stream(key, name), (count,), 0, room)  # noqa: E731
    index, top, left = corner("batch", n), corner("top", height - side + 1), corner("left", width - side + 1)
    cut = lambda i, y, x: jax.lax.dynamic_slice(images_u8, (i, y, x, 0), (1, side, side, 3))[0]  # noqa: E731
    return to_float(jax.vmap(cut)(index, top, left))


def encode(module: AutoencoderKL, params: Any, images: jax.Array) -> jax.Array:
    """Moments of images."""
    return jnp.asarray(module.apply({"params": params}, images, method=AutoencoderKL.encode))


def decode(module: AutoencoderKL, params: Any, z: jax.Array) -> jax.Array:
    """Images of unscaled latents."""
    return jnp.asarray(module.apply({"params": params}, z, method=AutoencoderKL.decode))


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
    size = images_u8.shape[1]
    params = module.init(jax.random.key(settings.seed), jnp.zeros((1, size, size, 3)))["params"]

    def loss(stage: StageSettings, side: int) -> Loss:
        world = stage.batch // 2

        def value(params: Any, key: jax.Array, data: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            drawn = windows(stream(key, "world"), data, stage.batch - world // 2, side)
            mixed = collages(stream(key, "collage"), drawn[world:])
            images = jnp.concatenate([drawn[:world], mixed, textures(stream(key, "texture"), world // 2, side)])
            moments = encode(module, params, images)
            mean, logvar = jnp.split(moments, 2, axis=-1)
            recon = decode(module, params, sample_moments(stream(key, "sample"), moments))
            kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar).mean()
            l1 = jnp.abs(recon - images)[:world].mean()
            return reconstruction_loss(recon, images) + settings.kl_weight * kl, {"l1": l1, "kl": kl}

        return value

    data = jnp.asarray(images_u8)
    # windows of half the side cost a quarter, and the number of updates is what a VAE lacks on a CPU; whole pictures
    # come last because the middle attention and the group statistics see more positions there
    on_windows = loss(settings.vae, size // 2)
    params = train("vae", settings.vae, directory / "windows", params, on_windows, data, settings.seed)
    whole = settings.vae_whole
    params = train("vae_whole", whole, directory / "whole", params, loss(whole, size), data, settings.seed)
    moments = encode_all(config, params, images_u8[:2048])
    latents = sample_moments(jax.random.key(0), jnp.asarray(moments))
    scaled = dict(settings.vae.model, scaling_factor=round(1.0 / float(latents.std()), 5))
    return VAEConfig.from_dict(scaled), params


def encode_all(config: VAEConfig, params: Any, images_u8: np.ndarray, batch: int = 64) -> np.ndarray:
    """Unscaled moments of all images, float32 (n, h, w, 2 * latent channels)."""
    module = AutoencoderKL(config)
    jitted = jit()(lambda p, x: encode(module, p, to_float(x)))
    return in_batches(partial(jitted, params), batch, images_u8)


def through_vae(
    config: VAEConfig, params: Any, images_u8: np.ndarray, rng: np.random.Generator, batch: int = 64
) -> np.ndarray:
    """Pictures as the VAE gives them back, uint8, their latents off by up to a tenth of the latents' deviation."""
    module = AutoencoderKL(config)
    jitted = jit()(lambda p, z: decode(module, p, z))
    means = np.split(encode_all(config, params, images_u8), 2, axis=-1)[0]
    strength = rng.uniform(0, 0.1, (len(means), 1, 1, 1)) / config.scaling_factor
    noisy = (means + strength * rng.standard_normal(means.shape)).astype(np.float32)
    pixels = in_batches(partial(jitted, params), batch, noisy)
    return np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
