"""Training of the judge on everything that can be drawn, as rendered and as the VAE gives it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.rng import stream
from cns_jax.engine.measure.judging import read_judge
from cns_jax.engine.pretrain.loop import train
from cns_jax.engine.pretrain.settings import PretrainSettings
from cns_jax.engine.pretrain.vae import through_vae, to_float
from cns_jax.evals.judge import Labels, judge_loss, verdict
from cns_jax.evals.world_judge import JUDGE, labels_of
from cns_jax.miniature.concepts import any_example
from cns_jax.miniature.world import draw_all
from cns_jax.nn.vae import VAEConfig


def train_judge(settings: PretrainSettings, vae: VAEConfig, vae_params: Any, directory: Path) -> Any:
    """Train on renders and on the same after the VAE, blurred and noisy: generated pictures are a little of all."""
    images, pictures = zip(*draw_all(any_example, settings.seed + 1, settings.judge_pictures), strict=True)
    renders = np.stack(images)
    rng = np.random.default_rng(settings.seed)
    both = np.concatenate([renders, through_vae(vae, vae_params, renders, rng)])
    size, count = renders.shape[1], len(renders)
    start = settings.judge.start
    if start:
        params = jax.tree.map(jnp.asarray, read_judge(Path(start)))
    else:
        params = JUDGE.init(jax.random.key(settings.seed), jnp.zeros((1, size, size, 3)))["params"]
    data = {"images": jnp.asarray(both), "labels": labels_of(pictures)}

    def loss(params: Any, key: jax.Array, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        index = jax.random.randint(stream(key, "batch"), (settings.judge.batch,), 0, 2 * count)
        images = _moved(stream(key, "move"), to_float(data["images"][index]))
        pad = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        blurred = sum(pad[:, i : i + size, j : j + size] for i in range(3) for j in range(3)) / 9
        share = jax.random.uniform(stream(key, "blur"), (settings.judge.batch, 1, 1, 1), maxval=0.7)
        images = images * (1 - share) + blurred * share
        images = images + 0.04 * jax.random.normal(stream(key, "noise"), images.shape)
        labels = Labels(*(leaf[index % count] for leaf in data["labels"]))
        return judge_loss(verdict(JUDGE, params, images), labels), {}

    return train("judge", settings.judge, directory, params, loss, data, settings.seed)


def _moved(key: jax.Array, images: jax.Array, most: int = 5) -> jax.Array:
    """Each picture moved by up to `most` pixels, half of them mirrored: few renders go a longer way."""
    count, size = images.shape[:2]
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    offsets = jax.random.randint(key, (count, 2), 0, 2 * most + 1)
    cut = jax.vmap(lambda x, o: jax.lax.dynamic_slice(x, (o[0], o[1], 0), (size, size, x.shape[-1])))(padded, offsets)
    mirrored = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, (count, 1, 1, 1))
    return jnp.where(mirrored, cut[:, :, ::-1], cut)
