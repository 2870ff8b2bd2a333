"""A VAE from elsewhere in the place of a checkpoint's own: a diffusers folder, a single file, or one of the hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax

from cns_jax.nn.config import UnsupportedConfig
from cns_jax.nn.model import Model
from cns_jax.nn.vae import VAEConfig
from cns_jax.weights.find import PICKLES, read_json, refuse_pickle
from cns_jax.weights.folder import read_component
from cns_jax.weights.locate import HUB_ID, download
from cns_jax.weights.original import PREFIX
from cns_jax.weights.pipeline import Part, Source
from cns_jax.weights.single_file import read_part
from cns_jax.weights.strict import with_new_names
from cns_jax.weights.tensors import WeightsMismatch, index_file

_FILE = "diffusion_pytorch_model.safetensors"


def with_vae(source: Source, vae: str) -> Source:
    """The checkpoint with another VAE.

    vae: a folder with config.json and weights, or of a whole diffusers pipeline; a .safetensors file in diffusers' or
    in the original layout, whose sizes are those of the checkpoint's own VAE; or owner/name on the hub.
    Raises WeightsMismatch or UnsupportedConfig naming what is there, or what does not fit the checkpoint's UNet.
    """
    path = Path(vae).expanduser()
    if path.is_file():
        return dataclasses.replace(source, parts={**source.parts, "vae": _of_file(path, source.model)})
    folder = _folder(path, vae)
    told = read_json(folder / "config.json")
    config = VAEConfig.from_dict(told)
    if config.latent_channels != source.model.unet.in_channels:
        raise UnsupportedConfig(
            f"{folder / 'config.json'}: latent_channels={config.latent_channels}, the model's UNet reads "
            f"{source.model.unet.in_channels}; take a VAE of the same family"
        )
    model, parts = dataclasses.replace(source.model, vae=config), {**source.parts, "vae": read_component(folder, _FILE)}
    return dataclasses.replace(source, model=model, parts=parts, configs={**source.configs, "vae": told})


def _folder(path: Path, vae: str) -> Path:
    if path.is_dir():
        return path / "vae" if (path / "model_index.json").is_file() else path
    if not HUB_ID.fullmatch(vae):
        raise WeightsMismatch(
            f"vae={vae!r} does not exist; give a diffusers VAE folder, a .safetensors file, or owner/name on the hub"
        )
    return download(vae, ["config.json", _FILE])


def _of_file(path: Path, model: Model) -> Part:
    if path.suffix in PICKLES:
        refuse_pickle(path)
    stored, _ = index_file(path)
    if any(key.startswith("decoder.up_blocks.") for key in stored):
        return Part(path, with_new_names(stored))
    prefix = PREFIX["vae"]
    if not any(key.startswith(prefix) for key in stored):  # a file of the VAE alone
        stored = {prefix + key: where for key, where in stored.items()}
    return read_part(path, "vae", stored, model, jax.eval_shape(model.init, jax.random.key(0))["vae"])
