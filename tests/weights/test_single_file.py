"""One file in the original layout: out and in again, both text encoders, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cns_jax.core.tree import fingerprint, flatten
from cns_jax.nn.model import Model
from cns_jax.nn.sizes import SD15, SD21
from cns_jax.weights.layout import file_key
from cns_jax.weights.original import original_names
from cns_jax.weights.single_file import read_single_file, write_single_file
from cns_jax.weights.tensors import WeightsMismatch

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."


@pytest.fixture
def file(tiny_pipeline, tmp_path: Path) -> Path:
    return write_single_file(tmp_path / "tiny.safetensors", tiny_pipeline, np.float32, {})


def edit(file: Path, change) -> Path:
    """The file with other tensors, without our metadata about sizes unless they are kept."""
    from cns_jax.weights.tensors import index_file

    metadata = index_file(file)[1]
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata)
    return file


@pytest.mark.parametrize("openclip", [False, True], ids=["sd1", "sd2"])
def test_round_trip(tiny_pipeline, tmp_path: Path, openclip: bool) -> None:
    pipeline = tiny_pipeline
    if openclip:
        text = dataclasses.replace(pipeline.model.text_encoder, hidden_act="gelu")
        pipeline = dataclasses.replace(pipeline, model=dataclasses.replace(pipeline.model, text_encoder=text))
    file = write_single_file(tmp_path / "one.safetensors", pipeline, np.float32, {"modelspec.title": "x"})
    stacked = [k for k in load_file(file) if "in_proj_weight" in k]
    assert len(stacked) == (2 if openclip else 0)
    read = read_single_file(file, pipeline.tokenizer).load()
    assert read.model == pipeline.model and read.schedule == pipeline.schedule
    assert fingerprint(read.params) == fingerprint(pipeline.params)
    assert read.ids == pipeline.ids


def test_ema_copies_buffers_and_noise_tables_are_left_out(file: Path, tiny_pipeline) -> None:
    def add(tensors) -> None:
        tensors["model_ema.diffusion_modelconv"] = np.ones(3, np.float32)
        tensors["alphas_cumprod"] = np.ones(3, np.float32)
        tensors[f"{TEXT}transformer.text_model.embeddings.position_ids"] = np.arange(20)[None]
        tensors[f"{TEXT}transformer.text_projection.weight"] = tensors["denoiser.sigmas"] = np.ones(3, np.float32)
        tensors[f"{VAE}loss.logvar"] = tensors[f"{VAE}model_ema.decay"] = np.ones(3, np.float32)
        tensors["control_model.x"] = tensors["lora_te_x"] = np.ones(3, np.float32)

    read = read_single_file(edit(file, add), tiny_pipeline.tokenizer).load()
    assert fingerprint(read.params) == fingerprint(tiny_pipeline.params)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: [t.pop(k) for k in list(t) if k.startswith(VAE)], r"has no vae \(first_stage_model"),
        (lambda t: [t.pop(k) for k in list(t) if not k.startswith(UNET)], "vae .* text_encoder"),
        (lambda t: t.update({"conditioner.embedders.0.x": np.ones(1)}), "is Stable Diffusion XL"),
        (lambda t: t.update({f"{UNET}joint_blocks.0.x": np.ones(1)}), "is Stable Diffusion 3"),
        (lambda t: (t.clear(), t.update({"control_model.x": np.ones(1)})), "is a ControlNet"),
        (lambda t: (t.clear(), t.update({"lora_unet_x.lora_up.weight": np.ones(1)})), "is a LoRA"),
        (lambda t: (t.clear(), t.update({"x": np.ones(1)})), "has no unet .*, vae .*, text_encoder"),
        (lambda t: t.update({f"{UNET}new": np.ones(1)}), "1 keys unexpected: model.diffusion_model.new"),
        (lambda t: t.pop(f"{UNET}input_blocks.0.0.bias"), "1 keys missing: conv_in.bias"),
        (lambda t: t.update({f"{UNET}input_blocks.0.0.bias": np.full(16, np.nan, np.float32)}), "NaN"),
    ],
)
def test_differences_are_named(file: Path, tiny_pipeline, change, said: str) -> None:
    with pytest.raises(WeightsMismatch, match=said) as caught:
        read_single_file(edit(file, change), tiny_pipeline.tokenizer).load()
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(("model", "width"), [(SD15, 768), (SD21, 1024)], ids=["sd15", "sd21"])
def test_the_kind_is_told_from_the_weights(model: Model, width: int, tmp_path: Path) -> None:
    """Nothing but a header with SD's names and shapes is needed to tell 1.x from 2.x."""
    from cns_jax.weights import single_file

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    unet = flatten(shapes["unet"])
    assert sum(int(np.prod(leaf.shape)) for leaf in unet.values()) == (859_520_964 if width == 768 else 865_910_724)
    names = original_names("unet", map(file_key, unet), model)
    assert len(set(names.values())) == len(unet)
    key = UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert key in names.values()
    stored = {key: single_file.Stored(tmp_path, key, (320, width))}
    found, schedule, _ = single_file._described(tmp_path, stored, {}, "")
    assert found == model and schedule.prediction_type == ("epsilon" if width == 768 else "v_prediction")
    assert single_file._described(tmp_path, stored, {}, "epsilon")[1].prediction_type == "epsilon"
    with pytest.raises(WeightsMismatch, match="reads 2048 text features"):
        single_file._described(tmp_path, {key: single_file.Stored(tmp_path, key, (640, 2048))}, {}, "")


def test_novelais_names(file: Path, tiny_pipeline) -> None:
    def rename(tensors) -> None:
        for key in [k for k in tensors if k.startswith(f"{TEXT}transformer.text_model.")]:
            tensors[key.replace(".text_model.", ".")] = tensors.pop(key)

    read = read_single_file(edit(file, rename), tiny_pipeline.tokenizer).load()
    assert fingerprint(read.params) == fingerprint(tiny_pipeline.params)


def test_an_inpainting_model_and_float8(tmp_path: Path) -> None:
    import ml_dtypes

    file = tmp_path / "x.safetensors"
    tensors = {f"{p}x": np.ones(1) for p in (VAE, TEXT)} | {f"{UNET}input_blocks.0.0.weight": np.ones((4, 9, 3, 3))}
    save_file(tensors, file)
    with pytest.raises(WeightsMismatch, match=r"its UNet reads 9 channels; inpainting \(9\)"):
        read_single_file(file, tmp_path)
    save_file({f"{UNET}x": np.ones(1, ml_dtypes.float8_e4m3fn)}, file)
    with pytest.raises(WeightsMismatch, match="holds float8 weights"):
        read_single_file(file, tmp_path)


def test_the_scheduler_comes_along(file: Path, tiny_pipeline) -> None:
    read = read_single_file(file, tiny_pipeline.tokenizer)
    assert read.scheduler["_class_name"] == "DDIMScheduler"


def test_openclip_layers_beyond_sd2s_are_left_out(tiny_pipeline, tmp_path: Path) -> None:
    text = dataclasses.replace(tiny_pipeline.model.text_encoder, hidden_act="gelu")
    pipeline = dataclasses.replace(tiny_pipeline, model=dataclasses.replace(tiny_pipeline.model, text_encoder=text))
    file = write_single_file(tmp_path / "two.safetensors", pipeline, np.float32, {})

    def add(tensors) -> None:
        for key in [k for k in tensors if ".resblocks.1." in k]:
            tensors[key.replace(".resblocks.1.", ".resblocks.2.")] = tensors[key]
        tensors[f"{TEXT}model.text_projection"] = tensors[f"{TEXT}model.logit_scale"] = np.ones(1, np.float32)

    read = read_single_file(edit(file, add), pipeline.tokenizer).load()
    assert fingerprint(read.params) == fingerprint(pipeline.params)
