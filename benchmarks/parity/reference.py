"""PyTorch's side of `benchmarks.parity`: Stable Diffusion 1.5 and two CLIPs of their real sizes, written and run.

diffusers and transformers initialize the weights and write the folders. Before that, norms and biases get noise and
queries and keys are enlarged: fresh norms are all alike and fresh attention is uniform, so that an exchanged tensor
or a wrong number of heads would hardly show.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

Answers = dict[str, np.ndarray]

UNET = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)  # diffusers' defaults otherwise
VAE = dict(
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    sample_size=512,
)
# the hub's CLIP configurations give these ids, which its tokenizer does not use; transformers knows of it
OLD_IDS = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1)
TEXT = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768, **OLD_IDS)
CLIPS = {
    "clip_b32": dict(projection_dim=512, text_config=OLD_IDS, vision_config={}),  # transformers' defaults: ViT-B/32
    "clip_l14": dict(
        projection_dim=768,
        text_config=TEXT,
        vision_config=dict(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            patch_size=14,
            projection_dim=768,
        ),
    ),
}
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    skip_prk_steps=True,
    steps_offset=1,
)

BEGIN, END = 49406, 49407
TOKEN = 2368  # an id that both prompts hold; the gradient of its row is compared
SMALL, LARGE = 16, 64  # sides of latents


def prompts() -> torch.Tensor:
    """Two prompts of token ids (2, 77), a short and a long one."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.full((2, 77), END)
    for row, length in zip(ids, (7, 60), strict=True):
        row[0] = BEGIN
        row[1 : 1 + length] = torch.randint(300, BEGIN, (length,), generator=generator)
        row[4] = TOKEN
    return ids


def enliven(model: torch.nn.Module) -> None:
    """Noise on norms and biases; queries and keys so large that attention is far from uniform."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.1)
            elif name.endswith(("to_q.weight", "to_k.weight", "q_proj.weight", "k_proj.weight")):
                weight.mul_(1.5 / (weight.std() * weight.shape[1] ** 0.5))


def array(x: torch.Tensor) -> np.ndarray:
    """float32, feature maps as (b, h, w, c)."""
    x = x.detach().float()
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous().numpy()


def in_both_dtypes(model: torch.nn.Module, run: Callable[[torch.dtype], Answers]) -> Answers:
    """What `run` answers in float32, and in bfloat16 under "name bfloat16". Leaves the model in bfloat16."""
    with torch.no_grad():
        answers = run(torch.float32)
        model.to(torch.bfloat16)
        return answers | {f"{name} bfloat16": value for name, value in run(torch.bfloat16).items()}


def write_text(folder: Path) -> Answers:
    """The text encoder: hidden states (2, 77, 768)."""
    model = CLIPTextModel(CLIPTextConfig(**TEXT)).eval()
    enliven(model)
    model.save_pretrained(folder / "sd15" / "text_encoder")
    ids = prompts()
    answers = in_both_dtypes(model, lambda _: {"hidden": array(model(input_ids=ids).last_hidden_state)})
    return {"ids": ids.int().numpy(), **answers}


def write_vae(folder: Path) -> Answers:
    """The VAE: moments of two images of 128 pixels, and the images decoded from the means."""
    model = AutoencoderKL(**VAE).eval()
    enliven(model)
    model.save_pretrained(folder / "sd15" / "vae")
    images = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        mean = model.encode(images).latent_dist.mean

    def run(dtype: torch.dtype) -> Answers:
        latents = model.encode(images.to(dtype)).latent_dist
        decoded = model.decode(mean.to(dtype)).sample
        return {"moments": array(torch.cat([latents.mean, latents.logvar], 1)), "decoded": array(decoded)}

    return {"images": array(images), "mean": array(mean), **in_both_dtypes(model, run)}


def write_unet(folder: Path) -> Answers:
    """The UNet: its output for two small latents and a large one, each with the hidden states of the prompts."""
    model = UNet2DConditionModel(**UNET).eval()
    enliven(model)
    model.save_pretrained(folder / "sd15" / "unet")
    text = torch.from_numpy(np.load(folder / "text.npz")["hidden"])
    latents = {"small": torch.randn(2, 4, SMALL, SMALL), "large": torch.randn(1, 4, LARGE, LARGE)}
    times = {"small": torch.tensor([3, 700]), "large": torch.tensor([500])}

    def run(dtype: torch.dtype) -> Answers:
        def output(size: str) -> np.ndarray:
            count = len(times[size])
            return array(model(latents[size].to(dtype), times[size], text[:count].to(dtype)).sample)

        return {f"{size} output": output(size) for size in latents}

    inputs = {f"{size} latents": array(x) for size, x in latents.items()}
    inputs |= {f"{size} times": t.int().numpy() for size, t in times.items()}
    return {**inputs, **in_both_dtypes(model, run)}


def write_gradients(folder: Path) -> Answers:
    """Through text encoder and UNet, of sum(output * weight): to the K/V kernels (file layout) and TOKEN's row."""
    text_encoder, unet = (
        kind.from_pretrained(folder / "sd15" / part, dtype=torch.float32).eval().requires_grad_(False)
        for kind, part in ((CLIPTextModel, "text_encoder"), (UNet2DConditionModel, "unet"))
    )
    kernels = {k: v for k, v in unet.named_parameters() if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    table = text_encoder.get_input_embeddings().weight
    for weight in (*kernels.values(), table):
        weight.requires_grad_(True)
    seen = np.load(folder / "unet.npz")
    latents = torch.from_numpy(seen["small latents"]).permute(0, 3, 1, 2)
    weight = torch.randn(latents.shape)
    hidden = text_encoder(input_ids=prompts()).last_hidden_state
    (unet(latents, torch.from_numpy(seen["small times"]), hidden).sample * weight).sum().backward()
    assert table.grad is not None
    return {"weight": array(weight), "row": array(table.grad[TOKEN]), **{k: array(v.grad) for k, v in kernels.items()}}


def write_half(folder: Path) -> Answers:
    """The parts again in float16, as the variant "fp16"."""
    for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder")):
        model = kind.from_pretrained(folder / "sd15" / part, dtype=torch.float16)
        model.save_pretrained(folder / "sd15" / part, variant="fp16")
    return {}


def write_clip(folder: Path, name: str) -> Answers:
    """A CLIPModel folder: embeddings of two prompts and of two images."""
    model = CLIPModel(CLIPConfig(**CLIPS[name])).eval()
    enliven(model)
    model.save_pretrained(folder / name)
    ids, images = prompts(), torch.randn(2, 3, 224, 224)

    def run(dtype: torch.dtype) -> Answers:
        text = model.text_projection(model.text_model(input_ids=ids).pooler_output)
        image = model.visual_projection(model.vision_model(pixel_values=images.to(dtype)).pooler_output)
        return {"text": array(text), "image": array(image)}

    return {"ids": ids.int().numpy(), "images": array(images), **in_both_dtypes(model, run)}


WRITERS: dict[str, Callable[[Path], Answers]] = {
    "text": write_text,
    "vae": write_vae,
    "unet": write_unet,
    "gradients": write_gradients,
    "half": write_half,
    **{name: lambda folder, name=name: write_clip(folder, name) for name in CLIPS},
}


def write(folder: Path) -> None:
    """`folder`/sd15 (float32, and the variant fp16), the CLIP folders, and every part's answers in part.npz."""
    (folder / "sd15").mkdir(parents=True, exist_ok=True)
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "sd15" / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline"}
    (folder / "sd15" / "model_index.json").write_text(json.dumps(index))
    for name, writer in WRITERS.items():
        torch.manual_seed(0)
        np.savez(folder / f"{name}.npz", **writer(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=write.__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
