"""Stable Diffusion 1.5 at its real size with random weights: python -m benchmarks.torch_reference.random_model DIR"""

from __future__ import annotations

import json
import sys
from itertools import islice, product
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.parity.reference import SCHEDULER, TEXT, UNET, VAE
from cns_jax.text.tokenizer import BOS, EOS, write_tokenizer


def write(folder: Path) -> None:
    """The three networks and the scheduler, float32, and a tokenizer with CLIP's number of entries, made up: pairs of
    letters. model_index.json comes last: then the folder is whole."""
    torch.manual_seed(0)
    config = CLIPTextConfig(**TEXT)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer", *pairs_of_letters(config.vocab_size))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def pairs_of_letters(size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A BPE vocabulary of `size` entries as CLIP's is laid out, and its merges: bytes, bytes that end a word, pairs of
    both, begin and end of text."""
    letters = sorted(ByteLevel.alphabet())
    ends = [f"{letter}</w>" for letter in letters]
    merges = list(islice(product(letters, ends), size - 2 - len(letters) - len(ends)))
    entries = [*letters, *ends, *map("".join, merges), BOS, EOS]
    return {entry: index for index, entry in enumerate(entries)}, merges


if __name__ == "__main__":
    write(Path(sys.argv[1]))
