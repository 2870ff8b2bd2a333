"""A transformers CLIPModel folder in and out: both towers with their projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.tree import Tree
from cns_jax.nn.clip import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from cns_jax.nn.config import config_dict
from cns_jax.weights.find import read_json
from cns_jax.weights.folder import write_component
from cns_jax.weights.strict import load_file

_FILE = "model.safetensors"


@dataclass(frozen=True)
class Clip:
    """Both CLIP towers with their projections. params: {"text", "vision", "logit_scale"}."""

    text: CLIPTextConfig
    vision: CLIPVisionConfig
    params: Mapping[str, Any]


def read_clip(directory: str | Path) -> Clip:
    """Read a transformers CLIPModel folder: both towers with their projections."""
    root = Path(directory)
    config = read_json(root / "config.json")
    shared = {"projection_dim": config.get("projection_dim", 512)}
    text = CLIPTextConfig.from_dict({**config["text_config"], **shared})
    vision = CLIPVisionConfig.from_dict({**config["vision_config"], **shared})
    target = jax.eval_shape(lambda: _clip_init(text, vision))
    tree = load_file(root / _FILE, target)
    towers = {
        "text": {k: tree[k] for k in ("text_model", "text_projection")},
        "vision": {k: tree[k] for k in ("vision_model", "visual_projection")},
    }
    return Clip(text, vision, {**towers, "logit_scale": tree["logit_scale"]})


def _clip_init(text: CLIPTextConfig, vision: CLIPVisionConfig) -> Tree:
    key, side = jax.random.key(0), vision.image_size
    t = CLIPTextModelWithProjection(text).init(key, jnp.zeros((1, 4), jnp.int32))["params"]
    v = CLIPVisionModelWithProjection(vision).init(key, jnp.zeros((1, side, side, 3)))["params"]
    return {**t, **v, "logit_scale": jnp.zeros(())}


def write_clip(directory: str | Path, clip: Clip, dtype: Any = np.float32) -> None:
    """Write a folder that transformers' CLIPModel.from_pretrained opens."""
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": clip.text.projection_dim,
        "text_config": {"model_type": "clip_text_model", **config_dict(clip.text)},
        "vision_config": {"model_type": "clip_vision_model", **config_dict(clip.vision)},
    }
    params = {**clip.params["text"], **clip.params["vision"], "logit_scale": clip.params["logit_scale"]}
    write_component(Path(directory), _FILE, config, params, dtype)
