"""Requests that cannot be met are refused before any weight is read."""

from __future__ import annotations

from typing import Any

import pytest

from cns_jax.core.settings import SettingsError
from cns_jax.engine.draw.request import Request


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give either --run=FOLDER of a training run, or --model=FOLDER, FILE.safetensors or miniature$"),
        ({"run": "r", "model": "miniature"}, "; both are given"),
        ({"model": "m", "after": "cat"}, "--after is a concept of a run"),
        ({"model": "m", "strength": 0.5}, "it is not known what was taught"),
        ({"run": "r", "tokens": ("<cat>",)}, "--tokens belongs to --model"),
        ({"run": "r", "tokenizer": "t"}, "--tokenizer belongs to --model"),
        ({"run": "r", "seed": -1}, "seed=-1 must be from 0 to 18446744073709551615"),
        ({"run": "r", "seed": 2**64}, "seed=18446744073709551616 must be from 0"),
        ({"run": "r", "strength": 3.0}, "strength=3.0 must be from 0"),
        ({"run": "r", "width": 500}, "width=500 must be a multiple of 8; near it: 496 and 504"),
        ({"run": "r", "height": 3}, "height=3 must be a multiple of 8; near it: 8$"),
        ({"run": "r", "height": -64}, "height=-64 must be a multiple of 8; near it: 8"),
        ({"run": "r", "width": 80000}, "width=80000 is more than 4096 pixels"),
        ({"run": "r", "clip_skip": 0}, "clip_skip=0 must be positive"),
        ({"run": "r", "num": 0}, "num=0 must be positive"),
        ({"run": "r", "guidance_scale": float("nan")}, "guidance_scale=nan must be a finite number"),
        ({"run": "r", "prompt_syntax": "comfy"}, "prompt_syntax='comfy'; known: a1111, plain"),
        ({"run": "r", "compute": "float64"}, "compute='float64'; known: auto, float32, bfloat16"),
        ({"run": "r", "prompts": ("caf\udce9",)}, "holds bytes that are no UTF-8 text"),
    ],
)
def test_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Request(**asked)


def test_accepted() -> None:
    Request(run="r", seed=2**64 - 1, width=512, height=768, strength=2.0, clip_skip=2)
