"""One concept from its pictures to saved weights: python -m benchmarks.torch_reference.concept JOB.json

The job is written by benchmarks.concept. Prints the seconds of its parts as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.speed.worker import peak_bytes
from benchmarks.torch_reference.data import Views
from benchmarks.torch_reference.lesson import Lesson, Rates
from benchmarks.torch_reference.networks import cumulative_alphas, kernels, load_networks, load_vae
from benchmarks.torch_reference.sampler import sample_latents
from benchmarks.torch_reference.selection import concept_neurons, feature_norms
from cns_jax.core.heap import keep_heap

TOKEN = "<new>"


class Teacher:
    """The networks on the device, and what a lesson needs of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, folder = job, Path(job["model"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = CLIPTokenizer.from_pretrained(job["tokenizer"])
        self.tokenizer.add_tokens(TOKEN)
        self.vae = load_vae(folder, self.device)
        self.unet, self.text = load_networks(folder, torch.zeros(1, job["width"]), self.device)
        with torch.no_grad():
            rows = self.text.get_input_embeddings()
            rows.rows[0] = rows.table[self.ids([job["class_word"]])[0, 1]]
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Padded token ids (b, l)."""
        encoded = self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        return encoded.input_ids.to(self.device)

    @torch.no_grad()
    def hidden(self, prompts: Sequence[str]) -> Tensor:
        """Hidden states (b, l, d)."""
        with self.autocast:
            return self.text(self.ids(prompts)).last_hidden_state

    @torch.no_grad()
    def moments(self) -> Tensor:
        """The VAE's moments of all pictures, each as it is and mirrored, kept in a file."""
        file = Path(self.job["cache"]) / "moments.safetensors"
        if file.exists():
            return load_file(file, str(self.device))["moments"]
        size, out = self.job["resolution"], []
        for path in self.job["pictures"]:
            picture = np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.LANCZOS))
            pixels = torch.tensor(picture.transpose(2, 0, 1) / 127.5 - 1, dtype=torch.float32)
            out += [pixels, pixels.flip(-1)]
        with self.autocast:
            moments = self.vae.encode(torch.stack(out).to(self.device)).latent_dist.parameters.float().contiguous()
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"moments": moments}, file)
        return moments

    def priors(self) -> Tensor:
        """Scaled latents of the class prompt's pictures, kept in a file."""
        job, file = self.job, Path(self.job["cache"]) / "priors.safetensors"
        if file.exists():
            return load_file(file, str(self.device))["latents"]
        count, side = job["priors"], job["resolution"] // 2 ** (len(self.vae.config.block_out_channels) - 1)
        noise = torch.randn(count, self.unet.config.in_channels, side, side, device=self.device)
        text, negative = self.hidden([job["class_prompt"]]).expand(count, -1, -1), self.hidden([""])

        def predict(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            with self.autocast:
                return self.unet(x, t, text).sample

        if self.device.type == "cuda":
            predict = torch.compile(predict)
        scheduler = DPMSolverMultistepScheduler.from_pretrained(job["model"], subfolder="scheduler")
        latents = sample_latents(predict, scheduler, text, negative, noise, job["prior_steps"], 4.0)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": latents.contiguous()}, file)
        return latents

    def masks(self) -> dict[str, Tensor]:
        """The concept's neurons."""
        norms = []
        for prompts in (self.job["captions"], self.job["calibration"]):
            hidden = self.hidden(prompts).float()
            norms.append(feature_norms(hidden, torch.ones(hidden.shape[:2], device=self.device)))
        return concept_neurons(kernels(self.unet), norms[0], norms[1], ratio=0.3)


def teach(job: dict[str, Any]) -> dict[str, float]:
    """The whole concept; seconds by part."""
    seconds, since = {}, time.perf_counter()

    def done(part: str) -> None:
        nonlocal since
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[part] = round(time.perf_counter() - since, 3)
        since = time.perf_counter()

    teacher = Teacher(job)
    done("load")
    moments = teacher.moments()
    done("encode")
    priors = teacher.priors()
    done("priors")
    masks = teacher.masks()
    used = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    done("select")
    rates = Rates(**job["rates"])
    alphas = cumulative_alphas(Path(job["model"]), teacher.device)
    lesson = Lesson(teacher.unet, teacher.text, alphas, 0, masks, used, rates)
    ids = teacher.ids([f"a photo of a {TOKEN} {job['class_word']}", job["class_prompt"]])
    scale = teacher.vae.config.scaling_factor
    views = Views(moments, ids[0], priors, ids[1], scale, job["batch"], job["prior_batch"], 1.0)
    for _ in range(job["steps"]):
        lesson.step(views.draw())
    done("train")
    weights = {name: p.detach().contiguous() for name, p in lesson.kernels.items()}
    save_file(weights | {"rows": lesson.rows.detach().contiguous()}, Path(job["out"]) / "torch.safetensors")
    done("save")
    return seconds | {"GB": round(peak_bytes("PyTorch") / 1e9, 2)}


if __name__ == "__main__":
    keep_heap()  # as cns_jax does
    print(json.dumps(teach(json.loads(Path(sys.argv[1]).read_text()))))
