"""A diffusers pipeline folder in and out, strictly."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax.core.files import copy_folder, save_tensors
from cns_jax.core.tree import flatten
from cns_jax.diffusion.schedule import Schedule
from cns_jax.nn.clip import CLIPTextConfig
from cns_jax.nn.config import UnsupportedConfig, config_dict
from cns_jax.nn.model import Model
from cns_jax.nn.unet import UNetConfig
from cns_jax.nn.vae import VAEConfig
from cns_jax.weights.find import read_json, weight_file, write_json
from cns_jax.weights.layout import tensors
from cns_jax.weights.pipeline import Part, Pipeline, Source
from cns_jax.weights.strict import with_new_names
from cns_jax.weights.tensors import Stored, WeightsMismatch, index_file

_UNET_FILE = "diffusion_pytorch_model.safetensors"
_TEXT_FILE = "model.safetensors"
WEIGHT_FILES = {"unet": _UNET_FILE, "vae": _UNET_FILE, "text_encoder": _TEXT_FILE}
_MARK = "_cns_jax"  # in model_index.json: the folder is one that we wrote
ENTRIES = ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler", "patches")
_CONFIGS = {"unet": UNetConfig, "vae": VAEConfig, "text_encoder": CLIPTextConfig}
_DTYPE_KEYS = ("dtype", "torch_dtype")  # transformers 5, and what older ones wrote
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


def read_folder(directory: str | Path, variant: str = "", prediction_type: str = "") -> Source:
    """A diffusers folder: model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/.

    variant: the middle of the weight files' names ("fp16"); empty: the plain files, or the only variant there is.
    prediction_type: instead of the one in scheduler_config.json.
    Raises WeightsMismatch (missing or cut files), UnsupportedConfig (a model that these modules do not build) or
    ScheduleError.
    """
    root = Path(directory)
    index = read_json(root / "model_index.json")
    if index.get("_class_name") != _MODEL_INDEX["_class_name"]:
        raise WeightsMismatch(
            f"{root / 'model_index.json'}: _class_name is {index.get('_class_name')!r}; "
            "only StableDiffusionPipeline (1.x, 2.x) is supported"
        )
    configs = {part: read_json(root / part / "config.json") for part in _CONFIGS}
    built: dict[str, Any] = {part: kind.from_dict(configs[part]) for part, kind in _CONFIGS.items()}  # type: ignore[attr-defined]
    model = Model(**built)
    if model.unet.in_channels != model.vae.latent_channels:
        raise UnsupportedConfig(
            f"{root / 'unet' / 'config.json'}: in_channels={model.unet.in_channels}, the VAE's latents have "
            f"{model.vae.latent_channels}; inpainting, depth and editing models are not supported"
        )
    scheduler = read_json(root / "scheduler" / "scheduler_config.json")
    if prediction_type:
        scheduler["prediction_type"] = prediction_type
    parts = {part: read_component(root / part, name, variant) for part, name in WEIGHT_FILES.items()}
    if variant and not any(f".{variant}." in part.file.name for part in parts.values()):
        raise WeightsMismatch(f"{root}: no part has the variant {variant!r}; leave variant empty for the plain files")
    text = parts["text_encoder"]
    parts["text_encoder"] = Part(text.file, _with_prefix(text.stored))
    return Source(model, parts, Schedule.from_config(scheduler), root / "tokenizer", scheduler, configs)


def read_component(folder: Path, name: str, variant: str = "") -> Part:
    """The tensors of one part, from one file or from the shards of an index."""
    file = weight_file(folder, name, variant)
    if file.suffix != ".json":
        return Part(file, with_new_names(index_file(file)[0]))
    places = read_json(file).get("weight_map")
    if not isinstance(places, dict):
        raise WeightsMismatch(f"{file} has no weight_map, which says what lies in which shard")
    stored: dict[str, Stored] = {}
    for shard in sorted(set(places.values())):
        stored |= index_file(folder / shard)[0]
    lost = sorted(set(places) - set(stored))
    if lost:
        raise WeightsMismatch(f"{file} promises {lost[0]} and {len(lost) - 1} more that its shards do not hold")
    return Part(file, with_new_names(stored))


def _with_prefix(found: Mapping[str, Stored]) -> dict[str, Stored]:
    """transformers 5 writes a text encoder without "text_model."; everything before it wrote the prefix."""
    bare = not any(key.startswith("text_model.") for key in found)
    return {f"text_model.{key}": value for key, value in found.items()} if bare else dict(found)


def write_pipeline(
    directory: str | Path,
    pipeline: Pipeline,
    dtype: Any = np.float32,
    write_tokenizer: Callable[[Path], None] | None = None,
    add: Callable[[Path], None] | None = None,
    replaces: Container[str] = (),
) -> Path:
    """Write a folder that diffusers' StableDiffusionPipeline.from_pretrained opens; returns its path.

    dtype: of the tensors, which the configurations then say. write_tokenizer: fills the tokenizer folder (default: a
    copy of the pipeline's). add: writes what else belongs into the folder. The folder is complete or absent: it is
    built beside its place and renamed. A folder that is there already is replaced if all in it is of an earlier model
    of ours, or named by
    `replaces`; else it is refused (WeightsMismatch).
    """
    root = Path(directory).expanduser().absolute()
    check_replaceable(root, replaces)
    building, old = root.with_name(root.name + ".partial"), root.with_name(root.name + ".old")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        _fill(building, pipeline, dtype, write_tokenizer)
        if add is not None:
            add(building)
        if root.exists():
            root.rename(old)
        building.rename(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return root


def _fill(root: Path, pipeline: Pipeline, dtype: Any, write_tokenizer: Callable[[Path], None] | None) -> None:
    scheduler = dict(pipeline.scheduler) or pipeline.schedule.to_config()
    index = {**_MODEL_INDEX, "scheduler": ["diffusers", scheduler["_class_name"]], _MARK: True}
    write_json(root / "model_index.json", index)
    heads: dict[str, dict[str, Any]] = {
        "unet": {"_class_name": "UNet2DConditionModel"},
        "vae": {"_class_name": "AutoencoderKL"},
        "text_encoder": {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"},
    }
    for part in WEIGHT_FILES:
        config = {**pipeline.configs.get(part, {}), **heads[part], **config_dict(getattr(pipeline.model, part))}
        _write_config(root / part, config, dtype)
    write_weights({root / part / file: pipeline.params[part] for part, file in WEIGHT_FILES.items()}, dtype)
    (root / "scheduler").mkdir()
    write_json(root / "scheduler" / "scheduler_config.json", scheduler)
    if write_tokenizer is None:
        copy_folder(pipeline.tokenizer, root / "tokenizer")
    else:
        write_tokenizer(root / "tokenizer")


def check_replaceable(root: Path, replaces: Container[str] = ()) -> None:
    """Refuse to replace a file, or a folder with anything but an earlier model of ours and what `replaces` names.

    Raises WeightsMismatch naming what would be lost.
    """
    if root.is_file():
        raise WeightsMismatch(f"{root} is a file; give the name of a folder to write")
    held = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    index = root / "model_index.json"
    ours = index.is_file() and read_json(index).get(_MARK) is True
    others = [name for name in held if name not in replaces and not (ours and name in ENTRIES)]
    if others:
        raise WeightsMismatch(
            f"{root} holds {', '.join(others[:3])}{' and more' if len(others) > 3 else ''}, which writing a model "
            "there would delete; give a folder that does not exist"
        )


def write_component(folder: Path, file: str, config: Mapping[str, Any], params: Any, dtype: Any) -> None:
    """One part of a folder: config.json and the weights."""
    _write_config(folder, config, dtype)
    write_weights({folder / file: params}, dtype)


def _write_config(folder: Path, config: Mapping[str, Any], dtype: Any) -> None:
    """config.json, which says the dtype of the file beside it wherever it says one: transformers makes its models of
    that dtype, in a pipeline that nobody gave another."""
    said = [key for key in _DTYPE_KEYS if key in config or (key == "dtype" and "model_type" in config)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {**config, **dict.fromkeys(said, np.dtype(dtype).name)})


def write_weights(parts: Mapping[Path, Any], dtype: Any) -> None:
    """File -> parameters, under diffusers' names and in PyTorch's layout; a part is converted while those before it are
    written."""
    with ThreadPoolExecutor() as pool:
        writes = [
            pool.submit(save_tensors, file, tensors(flatten(params), dtype), {"format": "pt"})
            for file, params in parts.items()
        ]
    for write in writes:
        write.result()
