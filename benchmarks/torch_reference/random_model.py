"""Stable Diffusion 1.5 at its real size with random weights: python -m benchmarks.torch_reference.random_model DIR"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.reference import SCHEDULER, TEXT, UNET, VAE


def write(folder: Path) -> None:
    """The three networks and the scheduler, float32; no tokenizer. model_index.json comes last: the folder is whole."""
    torch.manual_seed(0)
    CLIPTextModel(CLIPTextConfig(**TEXT)).save_pretrained(folder / "text_encoder")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
