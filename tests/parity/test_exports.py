"""diffusers opens what we export, and makes the same latents from it as we do."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from errors import assert_parity
from safetensors.numpy import load_file

from cns_jax.core.rng import stream
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.runs.export import ExportRequest, export
from cns_jax.engine.settings import SampleSettings

diffusers = pytest.importorskip("diffusers")

PROMPT = "a photo of a <tiger_cat> cat, <checked_mug>."
STEPS, GUIDANCE, SEED = 5, 5.0, 3


@pytest.fixture(scope="module")
def ours(trained) -> np.ndarray:
    """Our latents of the trained run, DDIM."""
    run = Stages.open(str(trained["folder"]))
    settings = SampleSettings(sampler="ddim", steps=STEPS, guidance_scale=GUIDANCE, batch=1)
    return run.studio.generator.latents(run.at(run.last), [PROMPT], [SEED], settings)


def theirs(pipe, prompt: str, shape: tuple[int, ...]) -> np.ndarray:
    """diffusers' latents from the same noise."""
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    noise = jax.random.normal(stream(jax.random.key(jnp.uint32(SEED)), "latents"), shape[1:])
    out = pipe(
        prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="latent", height=16, width=16,
        latents=torch.from_numpy(np.array(noise).transpose(2, 0, 1)[None]),
    ).images  # fmt: skip
    return out.numpy().transpose(0, 2, 3, 1)


def opened(folder: Path | str):
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)


def run(trained, tmp_path: Path, format_: str) -> list[Path]:
    return export(ExportRequest(str(trained["folder"]), format_, str(tmp_path / format_), dtype="float32"))[0]


def test_folder(trained, tmp_path: Path, ours: np.ndarray) -> None:
    (folder,) = run(trained, tmp_path, "diffusers")
    pipe = opened(folder)
    tokens = pipe.tokenizer.tokenize(PROMPT)
    assert "<tiger_cat>" in tokens and "<checked_mug>" in tokens
    assert_parity(theirs(pipe, PROMPT, ours.shape), ours, "latents of the exported folder in diffusers")
    base = theirs(opened(trained["values"]["model"]), PROMPT, ours.shape)
    assert np.abs(base - ours).max() > 100 * 1e-4 * np.abs(ours).max()  # the base model does something else


def test_single_file(trained, tmp_path: Path, ours: np.ndarray) -> None:
    """from_single_file needs the sizes, which it looks up on the hub for SD-1.x; here they come from the base."""
    file, *embeddings = run(trained, tmp_path, "single-file")
    base = trained["values"]["model"]
    pipe = diffusers.StableDiffusionPipeline.from_single_file(
        str(file), config=base, local_files_only=True, torch_dtype=torch.float32, safety_checker=None
    )
    (folder,) = run(trained, tmp_path, "diffusers")
    whole = opened(folder)
    for part in ("unet", "vae"):
        wanted, found = getattr(whole, part).state_dict(), getattr(pipe, part).state_dict()
        assert wanted.keys() == found.keys()
        for key, value in wanted.items():
            assert torch.equal(value, found[key]), key
    for embedding in embeddings:
        pipe.load_textual_inversion(str(embedding.parent), weight_name=embedding.name)
    assert_parity(theirs(pipe, PROMPT, ours.shape), ours, "latents of the single file and its embeddings in diffusers")


def test_custom_diffusion(trained, tmp_path: Path, ours: np.ndarray) -> None:
    file, *embeddings = run(trained, tmp_path, "custom-diffusion")
    pipe = opened(trained["values"]["model"])
    # without _pipeline diffusers 0.42 reads the file and changes nothing
    pipe.unet.load_attn_procs(str(file.parent), weight_name=file.name, _pipeline=pipe)
    for embedding in embeddings:
        pipe.load_textual_inversion(str(embedding.parent), weight_name=embedding.name)
    assert_parity(theirs(pipe, PROMPT, ours.shape), ours, "latents of Custom Diffusion processors in diffusers")


def test_lora_difference_on_diffusers_own_weights(trained, tmp_path: Path, ours: np.ndarray) -> None:
    """As ComfyUI and A1111 apply it: by the module's name with underscores."""
    file, *embeddings = run(trained, tmp_path, "lora")
    pipe = opened(trained["values"]["model"])
    modules = {"lora_unet_" + name.replace(".", "_"): module for name, module in pipe.unet.named_modules()}
    with torch.no_grad():
        for key, diff in load_file(file).items():
            if key.endswith(".diff"):
                modules[key.removesuffix(".diff")].weight += torch.from_numpy(diff)
    for embedding in embeddings:
        pipe.load_textual_inversion(str(embedding.parent), weight_name=embedding.name)
    assert_parity(theirs(pipe, PROMPT, ours.shape), ours, "latents of the LoRA-style difference in diffusers")
