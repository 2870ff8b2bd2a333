"""diffusers' from_single_file reads our single files: four levels as in SD-1.5, and SD-2.1's OpenCLIP text tower."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from random_weights import random_params

from cns_jax.core.tree import fingerprint
from cns_jax.diffusion.schedule import Schedule
from cns_jax.nn.model import Model
from cns_jax.nn.sizes import SD15, SD21
from cns_jax.weights.folder import write_pipeline
from cns_jax.weights.modelspec import Description, modelspec
from cns_jax.weights.pipeline import Pipeline
from cns_jax.weights.single_file import read_single_file, write_single_file

diffusers = pytest.importorskip("diffusers")


def shrunk(model: Model, heads: int | tuple[int, ...], like: Model) -> Model:
    """The same plan with narrow layers; vocabulary and text width of the tiny model."""
    text = dataclasses.replace(like.text_encoder, hidden_act=model.text_encoder.hidden_act)
    unet = dataclasses.replace(
        model.unet, block_out_channels=(16, 32, 32, 32), norm_num_groups=8, attention_head_dim=heads,
        cross_attention_dim=text.hidden_size, sample_size=8,
    )  # fmt: skip
    vae = dataclasses.replace(model.vae, block_out_channels=(8, 8, 16, 16), norm_num_groups=4, sample_size=64)
    return Model(unet, vae, text)


@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_diffusers_reads_it(name: str, tiny_pipeline, tmp_path: Path) -> None:
    model = shrunk(*((SD15, 4) if name == "sd15" else (SD21, (2, 4, 4, 4))), tiny_pipeline.model)
    kind = "epsilon" if name == "sd15" else "v_prediction"
    pipeline = Pipeline(model, random_params(model), Schedule(prediction_type=kind), tiny_pipeline.tokenizer)
    folder = write_pipeline(tmp_path / "folder", pipeline)
    metadata = modelspec(Description("x", ("a",), 64, kind, "mine"), model)
    file = write_single_file(tmp_path / "one.safetensors", pipeline, np.float32, metadata)
    ours = read_single_file(file, pipeline.tokenizer).load()
    assert fingerprint(ours.params) == fingerprint(pipeline.params) and ours.schedule.prediction_type == kind

    wanted = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    found = diffusers.StableDiffusionPipeline.from_single_file(
        str(file), config=str(folder), local_files_only=True, torch_dtype=torch.float32, safety_checker=None
    )
    for part in ("unet", "vae", "text_encoder"):
        theirs, read = getattr(wanted, part).state_dict(), getattr(found, part).state_dict()
        assert theirs.keys() == read.keys(), part
        for key, value in theirs.items():
            assert torch.equal(value, read[key]), f"{part} {key}"
