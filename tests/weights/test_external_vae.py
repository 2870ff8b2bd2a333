"""A VAE from elsewhere: every form that people have, and what does not fit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cns_jax.core.tree import flatten
from cns_jax.engine.runs.folder import claim
from cns_jax.engine.runs.learned import read_settings
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.nn.config import UnsupportedConfig
from cns_jax.weights.locate import Address
from cns_jax.weights.pipeline import Source
from cns_jax.weights.single_file import write_single_file
from cns_jax.weights.tensors import WeightsMismatch

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def vae(tiny_folder: Path, tiny_pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model's VAE with every weight halved, in the forms that people have."""
    root = tmp_path_factory.mktemp("vae")
    shutil.copytree(tiny_folder, root / "pipeline")
    file = root / "pipeline" / "vae" / WEIGHTS
    save_file({key: value / 2 for key, value in load_file(file).items()}, file)
    shutil.copytree(root / "pipeline" / "vae", root / "folder")
    shutil.copy(file, root / "diffusers.safetensors")
    halved = {k: {**v} for k, v in tiny_pipeline.params.items()}
    halved["vae"] = find_source(Address(str(root / "pipeline"))).load().params["vae"]
    write_single_file(root / "whole.safetensors", dataclasses.replace(tiny_pipeline, params=halved), np.float32, {})
    prefix = "first_stage_model."
    original = {k: v for k, v in load_file(root / "whole.safetensors").items() if k.startswith(prefix)}
    save_file(original, root / "prefixed.safetensors")
    save_file({k.removeprefix(prefix): v for k, v in original.items()}, root / "original.safetensors")
    return {path.stem: path for path in root.iterdir()}


def opened(tiny_folder: Path, vae: Path | str) -> Source:
    return find_source(Address(str(tiny_folder), vae=str(vae)))


@pytest.mark.parametrize("form", ["folder", "pipeline", "diffusers", "original", "prefixed", "whole"])
def test_forms(tiny_folder: Path, tiny_pipeline, vae: dict[str, Path], form: str) -> None:
    loaded = opened(tiny_folder, vae[form]).load()
    own = flatten(tiny_pipeline.params["vae"])
    for name, leaf in flatten(loaded.params["vae"]).items():
        np.testing.assert_array_equal(leaf, own[name] / 2)
    assert loaded.ids["unet"] == tiny_pipeline.ids["unet"] and loaded.ids["vae"] != tiny_pipeline.ids["vae"]


def test_what_does_not_fit(tiny_folder: Path, vae: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match="vae='nowhere' does not exist; give a diffusers VAE folder"):
        opened(tiny_folder, "nowhere")
    shutil.copytree(vae["folder"], tmp_path / "deeper")
    config = json.loads((tmp_path / "deeper" / "config.json").read_text())
    (tmp_path / "deeper" / "config.json").write_text(json.dumps(config | {"latent_channels": 16}))
    with pytest.raises(UnsupportedConfig, match="latent_channels=16, the model's UNet reads 4"):
        opened(tiny_folder, tmp_path / "deeper")
    tensors = load_file(vae["original"])
    tensors.pop("decoder.conv_in.weight")
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsMismatch, match="cut.safetensors: 1 keys missing: decoder.conv_in.weight"):
        opened(tiny_folder, tmp_path / "cut.safetensors").load()
    (tmp_path / "vae.pt").write_bytes(b"pickle")
    with pytest.raises(WeightsMismatch, match="vae.pt"):
        opened(tiny_folder, tmp_path / "vae.pt")
    with pytest.raises(WeightsMismatch, match="config.json"):
        opened(tiny_folder, tmp_path)


def test_a_run_keeps_the_places_of_its_vae_and_tokenizer(vae: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole paths in config.json, so that the run can be opened from another folder."""
    monkeypatch.chdir(vae["folder"].parent)

    def kept(**places: str) -> RunSettings:
        return read_settings(claim(RunSettings("name", "data", **places)) / "config.json")

    settings = kept(vae="folder", tokenizer="pipeline/tokenizer", run="own")
    assert settings.vae == str(vae["folder"]) and settings.address.vae == settings.vae
    assert settings.tokenizer == str(vae["pipeline"] / "tokenizer")
    assert claim(RunSettings("name", "data", tokenizer="pipeline/tokenizer", run="own"))  # the same one, said shorter
    assert kept(tokenizer="miniature", run="other").tokenizer == "miniature"
    assert kept(vae="owner/name", run="hub").vae == "owner/name"
