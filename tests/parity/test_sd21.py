"""Stable Diffusion 2.1 in small: heads a level, linear projections, OpenCLIP's text tower, v-prediction."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from errors import assert_parity, relative_error
from safetensors.torch import load_file

from cns_jax.core.mesh import make_mesh
from cns_jax.core.rng import stream
from cns_jax.core.tree import fingerprint
from cns_jax.engine.draw.sampling import sample_latents
from cns_jax.methods.applied import Applied
from cns_jax.text.tokenizer import bpe_tables, load_tokenizer, write_tokenizer
from cns_jax.text.train_bpe import train_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.folder import read_folder
from cns_jax.weights.pipeline import Pipeline
from cns_jax.weights.single_file import read_single_file, write_single_file

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

PROMPTS = ["a photo of a red cat on the beach", "a sketch"]
LENGTH, WIDTH = 20, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by diffusers, with the configuration of SD-2.1 but for sizes."""
    from benchmarks.parity.reference import enliven

    root = tmp_path_factory.mktemp("sd21")
    trained = train_tokenizer(PROMPTS, root / "trained", vocab_size=600, max_length=LENGTH)
    vocab, merges, _ = bpe_tables(trained)
    write_tokenizer(root / "tokenizer", vocab, merges, pad_token="!", max_length=LENGTH)
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,  # of 4: the last layer is not stored
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act="gelu",
        projection_dim=24,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        attention_head_dim=[1, 2, 4],
        cross_attention_dim=WIDTH,
        norm_num_groups=16,
        use_linear_projection=True,
        upcast_attention=True,
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(text).eval(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(root / "tokenizer"),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            prediction_type="v_prediction",
            set_alpha_to_one=False,
            steps_offset=1,
            timestep_spacing="leading",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        enliven(part)
    pipe.save_pretrained(root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return read_folder(folder).load()


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_what_is_read(pipeline: Pipeline) -> None:
    unet, text = pipeline.model.unet, pipeline.model.text_encoder
    assert unet.heads == (1, 2, 4) and unet.use_linear_projection
    assert text.num_hidden_layers == 3 and text.hidden_act == "gelu"
    assert pipeline.schedule.prediction_type == "v_prediction"
    assert pipeline.schedule.timestep_spacing == "leading" and pipeline.schedule.steps_offset == 1
    assert load_tokenizer(pipeline.tokenizer).pad_id == 0


def test_hidden_states(pipeline: Pipeline, theirs: Any) -> None:
    """From prompts to hidden states: the padding is "!", id 0."""
    ids = Vocabulary(load_tokenizer(pipeline.tokenizer)).encode(PROMPTS)
    their_ids = theirs.tokenizer(PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    assert (ids == their_ids.numpy()).all() and (ids[:, -1] == 0).all()
    with torch.no_grad():
        wanted = theirs.text_encoder(their_ids).last_hidden_state.numpy()
    hidden = pipeline.model.encode_text(pipeline.params["text_encoder"], jnp.asarray(ids))
    assert_parity(hidden, wanted, "SD-2.1 hidden states")


def test_unet(pipeline: Pipeline, theirs: Any) -> None:
    torch.manual_seed(0)
    latents, times, text = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, LENGTH, WIDTH)
    with torch.no_grad():
        wanted = theirs.unet(latents, times, text).sample.numpy().transpose(0, 2, 3, 1)
    inputs = [jnp.asarray(x.numpy()) for x in (latents.permute(0, 2, 3, 1), times, text)]
    model, params = pipeline.model, pipeline.params["unet"]
    assert_parity(jax.jit(model.predict_noise)(params, *inputs), wanted, "SD-2.1 UNet")
    # the same weights under another number of heads would load as well
    unet = dataclasses.replace(model.unet, attention_head_dim=(2, 2, 4))
    other = jax.jit(dataclasses.replace(model, unet=unet).predict_noise)(params, *inputs)
    assert relative_error(other, wanted) > 1e-2


def test_same_latents_in_diffusers(pipeline: Pipeline, theirs: Any) -> None:
    model, vocabulary = pipeline.model, Vocabulary(load_tokenizer(pipeline.tokenizer))
    shape = model.latent_shape(64, 64)
    noise = jax.random.normal(stream(jax.random.key(jnp.uint32(5)), "latents"), shape)
    ours = sample_latents(
        Applied(pipeline.params, jnp.zeros((1, WIDTH))), jnp.asarray(vocabulary.encode(PROMPTS[:1])),
        jnp.asarray(vocabulary.encode([""])), jnp.asarray([5], jnp.uint32), 5.0,
        model=model, schedule=pipeline.schedule, shape=shape, sampler="ddim", steps=5,
        mesh=make_mesh(devices=jax.devices()[:1]),
    )  # fmt: skip
    wanted = theirs(
        PROMPTS[0], num_inference_steps=5, guidance_scale=5.0, output_type="latent", height=64, width=64,
        latents=torch.from_numpy(np.array(noise).transpose(2, 0, 1)[None]),
    ).images  # fmt: skip
    assert_parity(ours, wanted.numpy().transpose(0, 2, 3, 1), "SD-2.1, v-prediction, 5 guided DDIM steps")


def test_single_file(pipeline: Pipeline, theirs: Any, tmp_path: Path) -> None:
    """Our file in the original layout, text tower as OpenCLIP's, read by us and by diffusers' conversions."""
    from diffusers.loaders.single_file_utils import (
        convert_ldm_unet_checkpoint,
        convert_ldm_vae_checkpoint,
        convert_open_clip_checkpoint,
    )

    file = write_single_file(tmp_path / "sd21.safetensors", pipeline, np.float32, {})
    read = read_single_file(file, pipeline.tokenizer).load()
    assert read.model == pipeline.model and read.schedule == pipeline.schedule
    assert fingerprint(read.params) == fingerprint(pipeline.params) and read.ids == pipeline.ids

    stored = load_file(file)
    assert stored["cond_stage_model.model.transformer.resblocks.2.attn.in_proj_weight"].shape == (3 * WIDTH, WIDTH)
    found = {
        "unet": convert_ldm_unet_checkpoint(dict(stored), dict(theirs.unet.config)),
        "vae": convert_ldm_vae_checkpoint(dict(stored), dict(theirs.vae.config)),
        "text_encoder": convert_open_clip_checkpoint(theirs.text_encoder, dict(stored)),
    }
    for part, tensors in found.items():
        wanted = getattr(theirs, part).state_dict()
        plain = {key.removeprefix("text_model."): tensor for key, tensor in tensors.items()}
        assert plain.keys() == {key.removeprefix("text_model.") for key in wanted}, part
        for key, tensor in wanted.items():
            assert torch.equal(tensor, plain[key.removeprefix("text_model.")].reshape(tensor.shape)), key
