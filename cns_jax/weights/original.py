"""diffusers' names <-> the names of the original single-file layout (CompVis, Stability AI, A1111, ComfyUI)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cns_jax.nn.model import Model
from cns_jax.nn.unet import UNetConfig

PREFIX = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}

# OpenCLIP's text tower, SD-2.x: one stored tensor holds query, key and value
_OPENCLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPENCLIP_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
QKV = ("q_proj", "k_proj", "v_proj")


def original_names(part: str, keys: Iterable[str], model: Model, openclip: bool = False) -> dict[str, str]:
    """diffusers key -> key of the single file, prefix included, for all `keys` of a part.

    openclip: the text encoder is stored as OpenCLIP's, where query, key and value of a layer share one key (in
    this order, stacked along the first axis).
    """
    if part == "unet":
        return {key: PREFIX[part] + _unet(key, model.unet) for key in keys}
    if part == "vae":
        levels = len(model.vae.block_out_channels)
        return {key: PREFIX[part] + _vae(key, levels) for key in keys}
    rename = _openclip if openclip else lambda key: f"transformer.{key}"
    return {key: PREFIX[part] + rename(key) for key in keys}


def _unet(key: str, config: UNetConfig) -> str:
    stem, _, leaf = key.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{leaf}"
    block, kind, index, rest = _split(key)
    if block == "mid_block":
        number = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[f"{kind}.{index}"]
        return f"middle_block.{number}.{_resnet(rest) if kind == 'resnets' else rest}"
    side, _, level_text = block.partition(".")
    level = int(level_text)
    down = side == "down_blocks"
    layers = config.layers if down else tuple(n + 1 for n in reversed(config.layers))
    attends = (config.down_block_types if down else config.up_block_types)[level].startswith("CrossAttn")
    # on the way down a level is its layers and its downsampler; conv_in is input block 0
    first = 1 + sum(n + 1 for n in layers[:level]) if down else sum(layers[:level])
    where = "input_blocks" if down else "output_blocks"
    if kind == "downsamplers":
        return f"{where}.{first + layers[level]}.0.{rest.replace('conv', 'op', 1)}"
    if kind == "upsamplers":
        return f"{where}.{first + layers[level] - 1}.{2 if attends else 1}.{rest}"
    inner = f"0.{_resnet(rest)}" if kind == "resnets" else f"1.{rest}"
    return f"{where}.{first + index}.{inner}"


def _split(key: str) -> tuple[str, str, int, str]:
    found = re.fullmatch(
        r"(mid_block|(?:down|up)_blocks\.\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", key
    )
    if found is None:
        raise ValueError(f"{key!r} has no name in the single-file layout")
    return found[1], found[2], int(found[3]), found[4]


def _resnet(rest: str) -> str:
    stem, _, leaf = rest.rpartition(".")
    return f"{_UNET_RESNET[stem]}.{leaf}"


def _vae(key: str, levels: int) -> str:
    if key.startswith(("quant_conv", "post_quant_conv")):
        return key
    half, _, inner = key.partition(".")
    if inner.startswith("conv_norm_out"):
        return f"{half}.{inner.replace('conv_norm_out', 'norm_out', 1)}"
    if inner.startswith(("conv_in", "conv_out")):
        return key
    block, kind, index, rest = _split(inner)
    rest = rest.replace("conv_shortcut", "nin_shortcut", 1)
    if block == "mid_block":
        if kind == "resnets":
            return f"{half}.mid.block_{index + 1}.{rest}"
        stem, _, leaf = rest.rpartition(".")
        return f"{half}.mid.attn_1.{_VAE_ATTENTION[stem]}.{leaf}"
    side, _, level_text = block.partition("_blocks.")
    # the original counts the decoder's levels from the finest
    level = int(level_text) if side == "down" else levels - 1 - int(level_text)
    if kind == "resnets":
        return f"{half}.{side}.{level}.block.{index}.{rest}"
    return f"{half}.{side}.{level}.{side}sample.{rest}"


def _openclip(key: str) -> str:
    if key in _OPENCLIP_ENDS:
        return f"model.{_OPENCLIP_ENDS[key]}"
    found = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
    if found is None:
        raise ValueError(f"{key!r} has no name in OpenCLIP's text tower")
    layer, stem, leaf = found[1], found[2], found[3]
    if stem.removeprefix("self_attn.") in QKV:
        return f"model.transformer.resblocks.{layer}.attn.in_proj_{leaf}"
    return f"model.transformer.resblocks.{layer}.{_OPENCLIP[stem]}.{leaf}"
