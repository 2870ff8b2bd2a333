"""What a PNG says of how it was made: in AUTOMATIC1111's form, which many programs show, and as JSON of our own."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PARAMETERS, OURS = "parameters", "cns_jax"
"""Keys of the two text chunks."""

# what the web UI calls a sampler and its noise levels
_SAMPLERS = {
    "ddim": ("DDIM", ""),
    "pndm": ("PLMS", ""),
    "euler": ("Euler", "Uniform"),
    "euler_karras": ("Euler", "Karras"),
    "euler_a": ("Euler a", "Uniform"),
    "dpm++2m": ("DPM++ 2M", "Uniform"),
    "dpm++2m_karras": ("DPM++ 2M", "Karras"),
}


def parameters(made: Mapping[str, Any]) -> str:
    """The text that AUTOMATIC1111's web UI writes: the prompt, "Negative prompt: ...", and a line of settings.

    made: as in the JSON chunk; prompt, seed, sampler, steps, guidance_scale, width, height, model and version are
    needed.
    """
    sampler, schedule = _SAMPLERS.get(made["sampler"], (made["sampler"], ""))
    settings = {
        "Steps": made["steps"],
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": f"{made['guidance_scale']:g}",
        "Seed": made["seed"],
        "Size": f"{made['width']}x{made['height']}",
        "Model": made["model"],
        "VAE": made.get("vae", ""),
        "Clip skip": made.get("clip_skip", 1) if made.get("clip_skip", 1) != 1 else "",
        "Version": f"cns_jax {made['version']}",
    }
    negative = made.get("negative_prompt")
    lines = [made["prompt"], f"Negative prompt: {negative}" if negative else ""]
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items() if value != ""))
    return "\n".join(line for line in lines if line)


def _quoted(value: Any) -> str:
    """A value as the line's readers expect it: in quotes where it holds what ends a value."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ',:\n"') else text


def png(image: np.ndarray, made: Mapping[str, Any]) -> bytes:
    """A PNG of uint8 (h, w, 3) with both chunks; iTXt where Latin-1 does not hold the text, else tEXt."""
    info = PngInfo()
    info.add_text(PARAMETERS, parameters(made))
    info.add_text(OURS, json.dumps(made))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", pnginfo=info)
    return file.getvalue()
