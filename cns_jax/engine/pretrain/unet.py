"""The miniature's UNet and text encoder: noise prediction on the world's latents with caption dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from cns_jax.core.rng import stream
from cns_jax.diffusion.schedule import Schedule, add_noise, min_snr_weights, target
from cns_jax.engine.pretrain.loop import train
from cns_jax.engine.pretrain.settings import PretrainSettings
from cns_jax.nn.model import Model
from cns_jax.nn.vae import sample_moments
from cns_jax.weights.folder import read_folder


def train_unet(
    settings: PretrainSettings,
    model: Model,
    schedule: Schedule,
    text_params: Any,
    moments: np.ndarray,
    ids: np.ndarray,
    empty_ids: np.ndarray,
    areas: np.ndarray,
    directory: Path,
) -> Any:
    """Train the UNet with min-SNR weights (Hang et al. 2023) and captions dropped for guidance, and with it the text
    encoder, as latent diffusion did (Rombach et al. 2022, section 3.3): for CLIP, stripes and checks were all but the
    same word. Returns {"unet": ..., "text_encoder": ...}.

    Timesteps are logit-normal (Esser et al. 2024, section 3.1): what a prompt decides, it decides at middling noise.

    text_params: what the text encoder starts from, unless settings.unet.start has one; moments: the VAE's, unscaled;
    ids: token ids of the captions; empty_ids (l,): those of ""; areas: uint8 (n, h, w), 255 where subjects are.
    """
    start = settings.unet.start
    if start:
        before = read_folder(Path(start)).load().params
    else:
        before = {**model.init(jax.random.key(settings.seed)), "text_encoder": text_params}
    params = {name: jax.tree.map(jnp.asarray, before[name]) for name in ("unet", "text_encoder")}
    data = {
        "moments": jnp.asarray(moments),
        "ids": jnp.asarray(ids),
        "empty": jnp.asarray(empty_ids),
        "areas": jnp.asarray(areas),
    }
    batch = settings.unet.batch

    def loss(params: Any, key: jax.Array, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        index = jax.random.randint(stream(key, "batch"), (batch,), 0, data["ids"].shape[0])
        latents = sample_moments(stream(key, "sample"), data["moments"][index]) * model.vae.scaling_factor
        dropped = jax.random.bernoulli(stream(key, "dropout"), settings.caption_dropout, (batch, 1))
        ids = jnp.where(dropped, data["empty"][None], data["ids"][index])
        text = model.encode_text(params["text_encoder"], ids)
        # one draw in each of `batch` equal slices: the same law as independent draws, less noise in the loss
        offsets = (jnp.arange(batch) + jax.random.uniform(stream(key, "time"), (batch,))) / batch
        logit = settings.timestep_mean + settings.timestep_std * ndtri(offsets)
        t = (jax.nn.sigmoid(logit) * schedule.num_train_timesteps).astype(jnp.int32)
        t = jnp.minimum(t, schedule.num_train_timesteps - 1)
        noise = jax.random.normal(stream(key, "noise"), latents.shape)
        predicted = model.predict_noise(params["unet"], add_noise(schedule, latents, noise, t), t, text)
        error_bhw = jnp.square(predicted - target(schedule, latents, noise, t)).mean(-1)
        weight_bhw = 1 + (settings.subject_weight - 1) * data["areas"][index].astype(jnp.float32) / 255
        error = (error_bhw * weight_bhw).mean((1, 2)) / weight_bhw.mean()
        return (min_snr_weights(schedule, t, settings.snr_gamma) * error).mean(), {"mse": error.mean()}

    return train("unet", settings.unet, directory, params, loss, data, settings.seed)
