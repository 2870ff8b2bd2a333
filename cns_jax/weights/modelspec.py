"""Metadata of the files that we write: the fields of the ModelSpec standard (Stability AI, version 1.0.0)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cns_jax.nn.model import Model

_ARCHITECTURES = {768: "stable-diffusion-v1", 1024: "stable-diffusion-v2"}


@dataclass(frozen=True)
class Description:
    """What people and tools want to know of a file. triggers: words to put into a prompt; kind: "" for a whole
    model, else "lora" or "textual-inversion"."""

    title: str
    triggers: Sequence[str]
    resolution: int
    prediction_type: str
    license: str
    kind: str = ""
    thumbnail: Path | None = None


def modelspec(about: Description, model: Model) -> dict[str, str]:
    """safetensors metadata."""
    architecture = _ARCHITECTURES.get(model.unet.cross_attention_dim, "stable-diffusion-custom")
    fields = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{architecture}/{about.kind}" if about.kind else architecture,
        "implementation": "diffusers" if about.kind else "sgm",
        "title": about.title,
        "resolution": f"{about.resolution}x{about.resolution}",
        "prediction_type": about.prediction_type.removesuffix("_prediction"),
        "trigger_phrase": ", ".join(about.triggers),
        "license": about.license,
        "tags": "cns-jax, concept neuron selection",
    }
    if about.thumbnail is not None and about.thumbnail.exists():
        encoded = base64.b64encode(about.thumbnail.read_bytes()).decode()
        fields["thumbnail"] = f"data:image/jpeg;base64,{encoded}"
    return {"format": "pt", **{f"modelspec.{key}": value for key, value in fields.items()}}
