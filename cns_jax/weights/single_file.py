"""One .safetensors file in the original layout (model.diffusion_model.*, first_stage_model.*, ...) in and out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cns_jax.core.files import save_tensors
from cns_jax.core.tree import flatten
from cns_jax.diffusion.schedule import Schedule
from cns_jax.nn.clip import CLIPTextConfig
from cns_jax.nn.config import config_dict
from cns_jax.nn.model import PARTS, Model
from cns_jax.nn.sizes import SD15, SD21
from cns_jax.nn.unet import UNetConfig
from cns_jax.nn.vae import VAEConfig
from cns_jax.weights.layout import file_key, tensors
from cns_jax.weights.original import PREFIX, QKV, original_names
from cns_jax.weights.pipeline import Part, Pipeline, Source
from cns_jax.weights.prediction import stated_schedule
from cns_jax.weights.tensors import Stored, WeightsMismatch, index_file

log = logging.getLogger(__name__)

_CONFIG = "cns_jax.config"  # metadata of the files that we write: sizes that shapes do not tell
_OPENCLIP = PREFIX["text_encoder"] + "model."

# not weights of the three networks: noise tables, EMA copies, buffers, and what OpenCLIP has beyond SD-2's use of it
_IGNORED = re.compile(
    r"(alphas_cumprod.*|betas|log_one_minus_alphas_cumprod|sqrt_.*|posterior_.*|logvar|lvlb_weights|model_ema\..*|"
    r".*\.position_ids|cond_stage_model\.model\.(text_projection|logit_scale|attn_mask|visual\..*)|"
    r"cond_stage_model\.(transformer\.)?(text_projection(\.weight)?|logit_scale)|"
    r"first_stage_model\.(loss|model_ema)\..*|state_dict|global_step)"
)
_OTHERS = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.": "Flux",
    "double_blocks.": "Flux",
    "model.diffusion_model.label_emb.": "Stable Diffusion XL",
}
# these may also lie beside a whole checkpoint, where they are left out
_ALONE = {"control_model.": "a ControlNet", "lora_unet_": "a LoRA", "lora_te_": "a LoRA", "emb_params": "an embedding"}


def read_single_file(file: Path, tokenizer: Path, prediction_type: str = "") -> Source:
    """The three networks of a single file.

    tokenizer: a CLIP tokenizer folder, which such a file does not hold. prediction_type: "epsilon" or
    "v_prediction"; empty: what the file, the .yaml beside it or its metadata say, else epsilon for SD-1.x and
    v_prediction for SD-2.x.
    Raises WeightsMismatch naming what the file is instead, or which part it lacks; ScheduleError for zero terminal SNR.
    """
    stored, metadata = index_file(file)
    _refuse(_OTHERS, stored, file)
    missing = [part for part, prefix in PREFIX.items() if not any(key.startswith(prefix) for key in stored)]
    if missing:
        _refuse(_ALONE, stored, file)
        names = ", ".join(f"{part} ({PREFIX[part]}*)" for part in missing)
        raise WeightsMismatch(f"{file} has no {names}; a whole checkpoint is needed, UNet, VAE and text encoder")
    channels = stored.get(PREFIX["unet"] + "input_blocks.0.0.weight")
    if _CONFIG not in metadata and channels is not None and channels.shape[1:2] != (4,):
        raise WeightsMismatch(
            f"{file}: its UNet reads {channels.shape[1]} channels; inpainting (9), editing (8) and depth models (5) "
            "are not supported"
        )
    model, schedule, scheduler = _described(file, stored, metadata, prediction_type)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    parts = {part: read_part(file, part, stored, model, shapes[part]) for part in PARTS}
    return Source(model, parts, schedule, tokenizer, scheduler)


def _refuse(kinds: Mapping[str, str], stored: Mapping[str, Stored], file: Path) -> None:
    for prefix, kind in kinds.items():
        if any(key.startswith(prefix) for key in stored):
            raise WeightsMismatch(f"{file} is {kind} ({prefix}*); Stable Diffusion 1.x and 2.x are supported")


def _described(
    file: Path, stored: Mapping[str, Stored], metadata: Mapping[str, str], prediction_type: str
) -> tuple[Model, Schedule, dict[str, Any]]:
    """Sizes, schedule and its dict: from our own metadata, else from what tells SD-1.x and 2.x apart."""
    if _CONFIG in metadata:
        try:
            described = json.loads(metadata[_CONFIG])
            model = Model(
                UNetConfig.from_dict(described["unet"]),
                VAEConfig.from_dict(described["vae"]),
                CLIPTextConfig.from_dict(described["text_encoder"]),
            )
            scheduler = described["scheduler"] | ({"prediction_type": prediction_type} if prediction_type else {})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise WeightsMismatch(f"{file}: its metadata {_CONFIG} is damaged ({error!r})") from None
        return model, Schedule.from_config(scheduler), scheduler
    key = PREFIX["unet"] + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    width = stored[key].shape[-1] if key in stored else None
    models = {768: SD15, 1024: SD21}
    if width not in models:
        raise WeightsMismatch(f"{file}: {key} reads {width} text features; SD-1.x has 768, SD-2.x 1024")
    stated = stated_schedule(file, stored)
    said = metadata.get("modelspec.prediction_type", "")
    if said:
        stated = {"prediction_type": {"v": "v_prediction"}.get(said, said), **stated}
    if prediction_type:
        stated["prediction_type"] = prediction_type
    if width == 1024 and "prediction_type" not in stated:
        log.info("%s does not say what it predicts; taking v_prediction (prediction_type=epsilon for SD-2-base)", file)
        stated["prediction_type"] = "v_prediction"
    return models[width], Schedule(**stated), {}


def read_part(file: Path, part: str, stored: Mapping[str, Stored], model: Model, shapes: Any) -> Part:
    """The tensors of one part, under diffusers' names. shapes: its parameters as ShapeDtypeStructs."""
    prefix = PREFIX[part]
    mine = {k: v for k, v in stored.items() if k.startswith(prefix) and not _IGNORED.fullmatch(k)}
    # NovelAI's layout, which many merges have
    mine = {
        re.sub(r"^(cond_stage_model\.transformer\.)(?!text_model\.)", r"\1text_model.", k): v for k, v in mine.items()
    }
    openclip = part == "text_encoder" and any(k.startswith(_OPENCLIP) for k in mine)
    names = original_names(part, (file_key(name) for name in flatten(shapes)), model, openclip)
    found = {key: _rows(key, mine[name]) if openclip else mine[name] for key, name in names.items() if name in mine}
    used = set(names.values())
    spare = {k: v for k, v in mine.items() if k not in used and not (openclip and _beyond(k, model))}
    return Part(file, {**found, **spare})  # what is spare is named as unexpected


def _beyond(key: str, model: Model) -> bool:
    """Whether a layer of OpenCLIP lies beyond those that Stable Diffusion 2 uses."""
    layer = re.match(re.escape(_OPENCLIP) + r"transformer\.resblocks\.(\d+)\.", key)
    return layer is not None and int(layer[1]) >= model.text_encoder.num_hidden_layers


def _rows(key: str, where: Stored) -> Stored:
    """The query's, key's or value's third of OpenCLIP's stacked tensor."""
    for i, name in enumerate(QKV):
        if f".{name}." in key:
            third = where.shape[0] // 3
            return Stored(where.file, where.key, (third, *where.shape[1:]), slice(i * third, (i + 1) * third))
    return where


def write_single_file(file: Path, pipeline: Pipeline, dtype: Any, metadata: Mapping[str, str]) -> Path:
    """Write the networks of `pipeline` (numpy parameters) in the original layout; complete or not at all."""
    model = pipeline.model
    out: dict[str, np.ndarray] = {}
    for part in PARTS:
        found = tensors(flatten(pipeline.params[part]), dtype)
        openclip = part == "text_encoder" and model.text_encoder.hidden_act == "gelu"
        names = original_names(part, found, model, openclip)
        for key in sorted(found, key=_stacking_order):
            name, tensor = names[key], found[key]
            if part == "vae" and ".attn_1." in name and name.endswith(".weight") and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
            out[name] = np.concatenate([out[name], tensor]) if name in out else tensor
    described = {part: config_dict(getattr(model, part)) for part in PARTS}
    described["scheduler"] = dict(pipeline.scheduler) or pipeline.schedule.to_config()
    return save_tensors(file, out, {"format": "pt", **metadata, _CONFIG: json.dumps(described)})


def _stacking_order(key: str) -> tuple[str, int]:
    """Query before key before value; all else by name."""
    for i, name in enumerate(QKV):
        if f".{name}." in key:
            return key.replace(name, "qkv"), i
    return key, 0
