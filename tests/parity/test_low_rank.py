"""An ordinary LoRA of a run: what diffusers makes of it is the base plus up @ down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_runs import finished

from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.folder import read_folder
from cns_jax.weights.layout import file_key, to_file
from cns_jax.weights.low_rank import approximated

diffusers = pytest.importorskip("diffusers")

RANK = 5


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tiny_folder, tmp_path_factory.mktemp("low_rank") / "run")


@pytest.fixture(scope="module")
def base(run: Path) -> Path:
    return Path(json.loads((run / "config.json").read_text())["model"])


def exported(run: Path, out: Path, **request) -> Path:
    return export(ExportRequest(str(run), "lora", str(out), **request))[0][0]


def wanted(base: Path, lora: Path) -> dict[str, np.ndarray]:
    """Key of the UNet's file -> base plus U V, float32."""
    kernels = cross_attention_kernels(read_folder(base).load().params["unet"])
    return {file_key(k): to_file(k, v) for k, v in approximated(kernels, load_file(lora)).items()}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_diffusers(run: Path, base: Path, tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("peft")
    lora = exported(run, tmp_path, rank=RANK, dtype=dtype)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.load_lora_weights(lora.parent, weight_name=lora.name)
    for file in sorted((lora.parent / "embeddings").iterdir()):
        pipe.load_textual_inversion(file.parent, weight_name=file.name)
    drawn = {"num_inference_steps": 2, "output_type": "latent", "generator": torch.manual_seed(0)}
    picture = pipe("a photo of a <tiger_cat> cat", **drawn).images
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    found = {key: value.numpy() for key, value in pipe.unet.state_dict().items()}
    for key, value in wanted(base, lora).items():
        np.testing.assert_allclose(found[key], value, atol=2e-6, err_msg=key)
    again = pipe("a photo of a <tiger_cat> cat", **drawn | {"generator": torch.manual_seed(0)}).images
    np.testing.assert_allclose(again, picture, atol=1e-4)  # what it draws with the adapter is what it draws fused
    plain = diffusers.StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    for file in sorted((lora.parent / "embeddings").iterdir()):
        plain.load_textual_inversion(file.parent, weight_name=file.name)
    without = plain("a photo of a <tiger_cat> cat", **drawn | {"generator": torch.manual_seed(0)}).images
    assert np.abs(np.asarray(without) - np.asarray(picture)).max() > 1e-2
