"""What a PNG says of itself, read as other programs read it."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cns_jax.diffusion.samplers import SAMPLERS
from cns_jax.engine.draw.picture_text import _SAMPLERS, parameters, png

MADE: dict[str, Any] = {
    "prompt": "a photo of a <tiger_cat> cat, (red:1.3)",
    "seed": 156680208700286,
    "sampler": "dpm++2m_karras",
    "steps": 20,
    "guidance_scale": 7.5,
    "negative_prompt": "blurry, dark",
    "width": 96,
    "height": 64,
    "model": "mini",
    "run": "mini",
    "concept": "tiger_cat",
    "version": "1.2.3",
}


def read(text: str) -> dict[str, str]:
    """As the web UI does: the last line is settings, "Negative prompt:" begins the negative one, the rest is the
    prompt; a value is in quotes, or ends at the next comma."""
    *lines, last = text.strip().split("\n")
    fields = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(fields) > 2, "else the web UI takes the line for a prompt"
    negative = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    found = {name: json.loads(value) if value.startswith('"') else value for name, value in fields}
    found["prompt"] = "\n".join(lines[:negative])
    found["negative"] = "\n".join(lines[negative:]).removeprefix("Negative prompt:").strip()
    return found


def test_the_text_is_the_web_uis() -> None:
    assert parameters(MADE) == (
        "a photo of a <tiger_cat> cat, (red:1.3)\n"
        "Negative prompt: blurry, dark\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 156680208700286, Size: 96x64, "
        "Model: mini, Version: cns_jax 1.2.3"
    )


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"negative_prompt": ""},
        {"prompt": ""},
        {"prompt": "two\nlines: a, b"},
        {"prompt": "猫 и été", "negative_prompt": "ugly\nblurry"},
        {"model": 'a, "b": c\n'},
        {"sampler": "ddim", "clip_skip": 2},
        {"prompt": "Steps: 3, Seed: 4"},
    ],
)
def test_the_web_ui_reads_it(change: dict[str, Any]) -> None:
    made = MADE | change
    image = Image.open(io.BytesIO(png(np.zeros((64, 96, 3), np.uint8), made)))
    found = read(image.text["parameters"])  # type: ignore[attr-defined]
    assert found["prompt"] == made["prompt"] and found["negative"] == made["negative_prompt"]
    assert (found["Seed"], found["Steps"], found["Size"]) == ("156680208700286", "20", "96x64")
    assert found["Model"] == made["model"] and found["Version"] == "cns_jax 1.2.3"
    assert found.get("Clip skip", "1") == str(made.get("clip_skip", 1))
    assert json.loads(image.text["cns_jax"]) == made  # type: ignore[attr-defined]


def test_other_scripts_take_the_chunk_that_holds_them() -> None:
    latin, other = (png(np.zeros((8, 8, 3), np.uint8), MADE | {"prompt": text}) for text in ("été", "猫"))
    assert b"iTXtparameters" not in latin and b"tEXtparameters" in latin
    assert b"iTXtparameters" in other


def test_every_sampler_has_the_web_uis_name() -> None:
    assert set(_SAMPLERS) == set(SAMPLERS)
