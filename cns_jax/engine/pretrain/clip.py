"""The miniature's CLIP: contrastive training on batches of pictures that are alike."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.rng import stream
from cns_jax.core.settings import require
from cns_jax.engine.pretrain.loop import train
from cns_jax.engine.pretrain.settings import PretrainSettings
from cns_jax.engine.pretrain.vae import to_float
from cns_jax.nn.clip import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from cns_jax.weights.clip_folder import read_clip

GROUP = 32  # pictures of a batch that share a label


def groups_of(labels: Sequence[tuple[str, ...]]) -> np.ndarray:
    """(groups, members) picture indices by equal label, every row filled by repetition to one width."""
    found: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(zlib.crc32("|".join(label).encode()), []).append(index)
    rows = [np.asarray(found[key]) for key in sorted(found)]
    width = max(len(row) for row in rows)
    return np.stack([np.resize(row, width) for row in rows])


def embed(params: Mapping[str, Any], text: CLIPTextConfig, vision: CLIPVisionConfig, ids: jax.Array, images: jax.Array):
    """Normalized text and image embeddings, each (b, projection_dim). images in [-1, 1]."""
    t = CLIPTextModelWithProjection(text).apply({"params": params["text"]}, ids)
    v = CLIPVisionModelWithProjection(vision).apply({"params": params["vision"]}, images)
    return t / jnp.linalg.norm(t, axis=-1, keepdims=True), v / jnp.linalg.norm(v, axis=-1, keepdims=True)


def train_clip(
    settings: PretrainSettings,
    images_u8: np.ndarray,
    ids: np.ndarray,
    labels: Sequence[Sequence[tuple[str, ...]]],
    directory: Path,
) -> Any:
    """Train both towers with the symmetric contrastive loss of CLIP.

    labels: several ways to label every picture. A batch is a few groups of equal label, each way in turn: with
    scene and style shared, only subjects and colours tell its pictures apart, with subject, colour and style only
    patterns do; a plain batch leaves both unlearned. Raises SettingsError if clip.batch does not divide into groups.
    """
    batch = settings.clip.batch
    require(batch % GROUP == 0, f"clip.batch={batch} must be a multiple of {GROUP}, the pictures of a group")
    text = CLIPTextConfig.from_dict(settings.clip.model["text"])
    vision = CLIPVisionConfig.from_dict(settings.clip.model["vision"])
    key = jax.random.key(settings.seed)
    size = images_u8.shape[1]
    params = {
        "text": CLIPTextModelWithProjection(text).init(stream(key, "text"), jnp.asarray(ids[:1]))["params"],
        "vision": CLIPVisionModelWithProjection(vision).init(stream(key, "vision"), jnp.zeros((1, size, size, 3)))[
            "params"
        ],
        "logit_scale": jnp.asarray(np.log(1 / 0.07), jnp.float32),
    }
    if settings.clip.start:
        params = jax.tree.map(jnp.asarray, read_clip(Path(settings.clip.start) / "clip").params)
    ways = tuple(jnp.asarray(groups_of(way)) for way in labels)
    data = {"images": jnp.asarray(images_u8), "ids": jnp.asarray(ids), "ways": ways}
    rows = batch // GROUP

    def members(key: jax.Array, groups: jax.Array) -> jax.Array:
        group = jax.random.randint(stream(key, "group"), (), 0, groups.shape[0])
        return groups[group, jax.random.randint(stream(key, "member"), (GROUP,), 0, groups.shape[1])]

    def loss(params: Any, key: jax.Array, data: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        drawn = [members(stream(key, "row", i), data["ways"][i % len(ways)]) for i in range(rows)]
        index = jnp.concatenate(drawn)
        t, v = embed(params, text, vision, data["ids"][index], to_float(data["images"][index]))
        logits = jnp.exp(jnp.minimum(params["logit_scale"], np.log(100.0))) * t @ v.T
        # pictures with the same caption are no negatives of each other
        same = (data["ids"][index][:, None] == data["ids"][index][None]).all(-1)
        eye = jnp.eye(len(index), dtype=bool)
        logits = jnp.where(same & ~eye, -1e9, logits)
        both = jax.nn.log_softmax(logits, 0) + jax.nn.log_softmax(logits, 1)
        right = (jnp.argmax(logits, 1) == jnp.arange(len(index))).mean()
        return -0.5 * jnp.diagonal(both).mean(), {"accuracy": right}

    return train("clip", settings.clip, directory, params, loss, data, settings.seed)
