"""Training of the judge on real renders of the world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.rng import stream
from cns_jax.engine.pretrain.loop import train
from cns_jax.engine.pretrain.settings import PretrainSettings
from cns_jax.engine.pretrain.vae import to_float
from cns_jax.evals.control import labels_of, world_judge
from cns_jax.evals.judge import Labels, judge_loss, verdict
from cns_jax.miniature.world import Picture


def train_judge(settings: PretrainSettings, images_u8: np.ndarray, pictures: Sequence[Picture], directory: Path) -> Any:
    """Train on renders and on softly blurred, noisy ones: generated pictures are a little of both."""
    module = world_judge()
    size = images_u8.shape[1]
    params = module.init(jax.random.key(settings.seed), jnp.zeros((1, size, size, 3)))["params"]
    data = {"images": jnp.asarray(images_u8), "labels": labels_of(pictures)}

    def loss(params: Any, key: jax.Array, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        index = jax.random.randint(stream(key, "batch"), (settings.judge.batch,), 0, data["images"].shape[0])
        images = to_float(data["images"][index])
        pad = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        blurred = sum(pad[:, i : i + size, j : j + size] for i in range(3) for j in range(3)) / 9
        share = jax.random.uniform(stream(key, "blur"), (settings.judge.batch, 1, 1, 1))
        images = images * (1 - share) + blurred * share
        images = images + 0.05 * jax.random.normal(stream(key, "noise"), images.shape)
        labels = Labels(*(leaf[index] for leaf in data["labels"]))
        return judge_loss(verdict(module, params, images), labels), {}

    return train("judge", settings.judge, directory, params, loss, data, settings.seed)
