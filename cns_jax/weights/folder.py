"""A diffusers pipeline folder (and a transformers CLIP folder) in and out, strictly."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from cns_jax.core.tree import Tree, flatten
from cns_jax.diffusion.schedule import Schedule
from cns_jax.nn.clip import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from cns_jax.nn.model import Model
from cns_jax.nn.unet import UNetConfig
from cns_jax.nn.vae import VAEConfig
from cns_jax.weights.layout import tensors
from cns_jax.weights.strict import WeightsMismatch, read_tensors, to_tree

_UNET_FILE = "diffusion_pytorch_model.safetensors"
_TEXT_FILE = "model.safetensors"
_FILES = {"unet": _UNET_FILE, "vae": _UNET_FILE, "text_encoder": _TEXT_FILE}
_CONFIGS = {"unet": UNetConfig, "vae": VAEConfig, "text_encoder": CLIPTextConfig}
_MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


@dataclass(frozen=True)
class Pipeline:
    """A Stable Diffusion in memory. params: float32 numpy arrays; tokenizer: its folder."""

    model: Model
    params: Mapping[str, Tree]
    schedule: Schedule
    tokenizer: Path


@dataclass(frozen=True)
class Clip:
    """Both CLIP towers with their projections. params: {"text", "vision", "logit_scale"}."""

    text: CLIPTextConfig
    vision: CLIPVisionConfig
    params: Mapping[str, Any]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsMismatch naming a missing or broken file."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise WeightsMismatch(f"{file} does not exist; is {file.parent} a diffusers folder?") from None
    except json.JSONDecodeError as error:
        raise WeightsMismatch(f"{file} is not JSON ({error})") from None


def read_pipeline(directory: str | Path) -> Pipeline:
    """Read a diffusers folder: model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/.

    Raises WeightsMismatch (missing files, differing keys or shapes), UnsupportedConfig (a model that these
    modules do not build) or ScheduleError.
    """
    root = Path(directory)
    index = read_json(root / "model_index.json")
    if index.get("_class_name") != _MODEL_INDEX["_class_name"]:
        raise WeightsMismatch(
            f"{root / 'model_index.json'}: _class_name is {index.get('_class_name')!r}; "
            "only StableDiffusionPipeline (1.x, 2.x) is supported"
        )
    built: dict[str, Any] = {
        part: config.from_dict(read_json(root / part / "config.json"))  # type: ignore[attr-defined]
        for part, config in _CONFIGS.items()
    }
    model = Model(**built)
    target = jax.eval_shape(model.init, jax.random.key(0))
    params = {}
    for part, name in _FILES.items():
        file = root / part / name
        found = read_tensors(file)
        params[part] = to_tree(_with_prefix(found) if part == "text_encoder" else found, target[part], file)
    schedule = Schedule.from_config(read_json(root / "scheduler" / "scheduler_config.json"))
    return Pipeline(model, params, schedule, root / "tokenizer")


def _with_prefix(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """transformers 5 writes a text encoder without "text_model."; everything before it wrote the prefix."""
    bare = not any(key.startswith("text_model.") for key in found)
    return {f"text_model.{key}": value for key, value in found.items()} if bare else found


def config_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as the JSON object that it was read from."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    return {k: v for k, v in plain.items() if v is not None}


def write_pipeline(
    directory: str | Path,
    pipeline: Pipeline,
    dtype: Any = np.float32,
    write_tokenizer: Callable[[Path], None] | None = None,
    scheduler: str = "DDIMScheduler",
) -> Path:
    """Write a folder that diffusers' StableDiffusionPipeline.from_pretrained opens; returns its path.

    dtype: of the tensors. write_tokenizer: fills the tokenizer folder (default: a copy of the pipeline's).
    The folder is complete or absent: it is built beside its place and renamed.
    """
    root = Path(directory)
    building = root.with_name(root.name + ".partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    index = {**_MODEL_INDEX, "scheduler": ["diffusers", scheduler]}
    _write_json(building / "model_index.json", index)
    heads: dict[str, dict[str, Any]] = {
        "unet": {"_class_name": "UNet2DConditionModel"},
        "vae": {"_class_name": "AutoencoderKL"},
        "text_encoder": {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"},
    }
    for part, file in _FILES.items():
        config = {**heads[part], **config_dict(getattr(pipeline.model, part))}
        write_component(building / part, file, config, pipeline.params[part], dtype)
    (building / "scheduler").mkdir()
    _write_json(building / "scheduler" / "scheduler_config.json", pipeline.schedule.to_config(scheduler))
    if write_tokenizer is None:
        shutil.copytree(pipeline.tokenizer, building / "tokenizer")
    else:
        write_tokenizer(building / "tokenizer")
    shutil.rmtree(root, ignore_errors=True)
    building.rename(root)
    return root


def write_component(folder: Path, file: str, config: Mapping[str, Any], params: Any, dtype: Any) -> None:
    """One part of a folder: config.json and the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config)
    save_file(tensors(flatten(params), dtype), folder / file, {"format": "pt"})


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_clip(directory: str | Path) -> Clip:
    """Read a transformers CLIPModel folder: both towers with their projections."""
    root = Path(directory)
    config = read_json(root / "config.json")
    shared = {"projection_dim": config.get("projection_dim", 512)}
    text = CLIPTextConfig.from_dict({**config["text_config"], **shared})
    vision = CLIPVisionConfig.from_dict({**config["vision_config"], **shared})
    target = jax.eval_shape(lambda: _clip_init(text, vision))
    tree = to_tree(read_tensors(root / _TEXT_FILE), target, root / _TEXT_FILE)
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
    write_component(Path(directory), _TEXT_FILE, config, params, dtype)
