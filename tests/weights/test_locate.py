"""Checkpoints by name: variants, shards, single files, the hub's cache, and one clear error for all else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cns_jax.core.tree import fingerprint
from cns_jax.weights.locate import Address, open_source
from cns_jax.weights.single_file import write_single_file
from cns_jax.weights.tensors import WeightsMismatch

PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def rename(folder: Path, middle: str, copy: bool = False) -> None:
    """Every weight file gets a variant's name."""
    for part, stem in PARTS.items():
        plain = folder / part / f"{stem}.safetensors"
        (shutil.copy if copy else shutil.move)(plain, folder / part / f"{stem}.{middle}.safetensors")


def shard(folder: Path, middle: str = "") -> None:
    """The UNet in two shards with an index, as diffusers names them."""
    dotted = f".{middle}" if middle else ""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    keys, places = sorted(tensors), {}
    for i, part in enumerate((keys[:20], keys[20:]), 1):
        name = f"diffusion_pytorch_model{dotted}-0000{i}-of-00002.safetensors"
        save_file({k: tensors[k] for k in part}, folder / "unet" / name)
        places |= dict.fromkeys(part, name)
    index = folder / "unet" / f"diffusion_pytorch_model.safetensors.index{dotted}.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def loaded(model: Path | str, **rest: str) -> str:
    return fingerprint(open_source(Address(str(model), **rest)).load().params)


def test_variants(folder: Path, tiny_pipeline) -> None:
    expected = fingerprint(tiny_pipeline.params)
    rename(folder, "fp16", copy=True)
    assert loaded(folder) == loaded(folder, variant="fp16") == expected
    with pytest.raises(WeightsMismatch, match="no part has the variant 'bf16'; leave variant empty"):
        open_source(Address(str(folder), variant="bf16"))
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    assert loaded(folder, variant="fp16") == expected  # the VAE's plain file, as diffusers does it


def test_the_only_variant_is_read(folder: Path, tiny_pipeline) -> None:
    rename(folder, "fp16")
    assert loaded(folder) == fingerprint(tiny_pipeline.params)
    shutil.copy(
        folder / "vae/diffusion_pytorch_model.fp16.safetensors", folder / "vae/diffusion_pytorch_model.bf16.safetensors"
    )
    with pytest.raises(WeightsMismatch, match="a plain file is not there; choose .*: bf16, fp16"):
        open_source(Address(str(folder)))
    with pytest.raises(WeightsMismatch, match="neither the variant 'x' nor a plain file is there"):
        open_source(Address(str(folder), variant="x"))


@pytest.mark.parametrize("middle", ["", "fp16"])
def test_shards(folder: Path, tiny_pipeline, middle: str) -> None:
    shard(folder, middle)
    assert loaded(folder) == fingerprint(tiny_pipeline.params)
    lost = next((folder / "unet").glob("*-00002-of-00002.safetensors"))
    whole = lost.read_bytes()
    lost.write_bytes(whole[:-4])
    with pytest.raises(WeightsMismatch, match="00002-of-00002.safetensors is not a whole safetensors file"):
        open_source(Address(str(folder)))
    lost.unlink()
    with pytest.raises(WeightsMismatch, match="00002-of-00002.safetensors does not exist"):
        open_source(Address(str(folder)))
    (index,) = (folder / "unet").glob("*index*.json")
    for text, said in (("{}", "has no weight_map"), ("[]", "holds a JSON list"), ("{", "is not JSON")):
        index.write_text(text)
        with pytest.raises(WeightsMismatch, match=said):
            open_source(Address(str(folder)))
    index.unlink()
    with pytest.raises(WeightsMismatch, match="not the index that belongs to them"):
        open_source(Address(str(folder)))


def test_old_names_of_the_vaes_attention(folder: Path, tiny_pipeline) -> None:
    """query, key, value, proj_attn, and projections as 1 x 1 convolutions."""
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for key, tensor in load_file(file).items():
        for new, name in old.items():
            if f"attentions.0.{new}." in key:
                key = key.replace(new, name)
                tensor = tensor[:, :, None, None] if key.startswith("encoder") and tensor.ndim == 2 else tensor
                break
        tensors[key] = tensor
    assert any("query" in key for key in tensors)
    save_file(tensors, file)
    assert loaded(folder) == fingerprint(tiny_pipeline.params)


def test_single_file_and_its_tokenizer(tiny_pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_single_file(tmp_path / "one.safetensors", tiny_pipeline, np.float32, {})
    assert loaded(file, tokenizer=str(tiny_pipeline.tokenizer)) == fingerprint(tiny_pipeline.params)
    shutil.copytree(tiny_pipeline.tokenizer, tmp_path / "tokenizer")
    assert loaded(file) == fingerprint(tiny_pipeline.params)
    shutil.rmtree(tmp_path / "tokenizer")
    offline(tmp_path, monkeypatch)
    with pytest.raises(WeightsMismatch) as caught:
        open_source(Address(str(file)))
    assert "holds no tokenizer" in str(caught.value) and str(tmp_path / "tokenizer") in str(caught.value)
    assert "hf download openai/clip-vit-large-patch14" in str(caught.value)


def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def test_the_hubs_cache(folder: Path, tiny_pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(tmp_path / "cache", monkeypatch)
    with pytest.raises(WeightsMismatch) as caught:
        open_source(Address("someone/tiny-sd", variant="fp16"))
    said = str(caught.value)
    assert "hub cannot be reached" in said and "hf download someone/tiny-sd --include" in said
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in said and str(tmp_path / "cache") in said
    repository = tmp_path / "cache" / "models--someone--tiny-sd"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
    assert loaded("someone/tiny-sd") == fingerprint(tiny_pipeline.params)


def test_v_prediction_can_be_said(folder: Path) -> None:
    assert open_source(Address(str(folder))).schedule.prediction_type == "epsilon"
    source = open_source(Address(str(folder), prediction_type="v_prediction"))
    assert source.schedule.prediction_type == source.scheduler["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(("name", "call"), [("model.ckpt", "from_single_file"), ("model.pt", "from_single_file")])
def test_pickled_files_are_refused(tmp_path: Path, name: str, call: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    for model in (tmp_path / name, tmp_path):
        with pytest.raises(WeightsMismatch, match="may run any code") as caught:
            open_source(Address(str(model)))
        assert f"P.{call}('{tmp_path / name}')" in str(caught.value)


def test_pickled_folders_are_refused(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(WeightsMismatch, match="may run any code") as caught:
        open_source(Address(str(folder)))
    assert f"P.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')" in str(caught.value)
    file.with_suffix(".bin").rename(file.with_suffix(".msgpack"))
    with pytest.raises(WeightsMismatch, match="is a Flax file"):
        open_source(Address(str(folder)))


def test_safetensors_beside_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"x")
    (tmp_path / "b.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsMismatch, match="for the single file in it give model='.*b.safetensors'"):
        open_source(Address(str(tmp_path)))
    (tmp_path / "b.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMismatch, match="from_single_file"):
        open_source(Address("."))


def test_a_folder_that_is_gone_is_not_only_a_hub_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsMismatch, match=f"there is no folder {tmp_path / 'gone' / 'sd15'}, and on the hub"):
        open_source(Address("gone/sd15"))


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert open_source(Address("~/model")).tokenizer == folder / "tokenizer"


def test_inpainting_models(folder: Path) -> None:
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "in_channels": 9}))
    with pytest.raises(ValueError, match="in_channels=9, the VAE's latents have 4; inpainting"):
        open_source(Address(str(folder)))


def test_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "some.safetensors").write_bytes(b"xxxxxxxxxxxxxxxxxx")
    for model, said in (
        (tmp_path / "a.txt", "neither a diffusers folder nor"),
        (tmp_path / "some.safetensors", "not a whole safetensors file"),
        (tmp_path / "other.safetensors", "there is no such file"),
        (tmp_path, f"for the single file in it give model='{tmp_path / 'some.safetensors'}'"),
        ("/no/where/at/all", "does not exist; give 'miniature'"),
    ):
        with pytest.raises(WeightsMismatch) as caught:
            open_source(Address(str(model), tokenizer=str(tmp_path)))
        assert said in str(caught.value)
