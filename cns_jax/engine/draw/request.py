"""What a person asks `generate` for, checked before any weight is read."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args

from cns_jax.core.rng import check_seed
from cns_jax.core.settings import require
from cns_jax.engine.settings import SampleSettings
from cns_jax.text.chunks import Syntax
from cns_jax.weights.strength import check_strength

_UNIT, _LARGEST = 8, 4096  # pixels
_COMPUTE = ("", "auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Request:
    """What to draw, from a run or from a model; empty strings, 0 and a negative guidance mean the run's own settings.

    run: a training run's folder, with its weights after concept `after` (empty: the last), `strength` of the way from
    the base model. model: instead of a run, a checkpoint (see `Address`, also for variant, tokenizer and
    prediction_type); tokens: embedding files, folders of them, or tokens that the checkpoint must know. vae: instead of
    the weights' own. num: pictures a prompt, whose seeds count up from `seed`. width, height: in pixels. clip_skip: 1
    takes the text encoder's last layer, 2 the one before. compute: see `RunSettings`. out: the folder for the pictures;
    overwrite: number from 0 instead of after what lies there.

    Raises SettingsError for what cannot be.
    """

    run: str = ""
    prompts: tuple[str, ...] = ()
    prompts_file: str = ""
    prompt_syntax: Syntax = "a1111"
    negative_prompt: str = ""
    num: int = 4
    seed: int = 0
    sampler: str = ""
    steps: int = 0
    guidance_scale: float = -1.0
    width: int = 0
    height: int = 0
    clip_skip: int = 1
    after: str = ""
    strength: float = 1.0
    model: str = ""
    tokens: tuple[str, ...] = ()
    variant: str = ""
    tokenizer: str = ""
    prediction_type: str = ""
    vae: str = ""
    compute: str = ""
    out: str = ""
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.sampling(SampleSettings())
        require(
            bool(self.run) != bool(self.model),
            "give either --run=FOLDER of a training run, or --model=FOLDER, FILE.safetensors or miniature"
            + ("; both are given" if self.run else ""),
        )
        require(not self.model or not self.after, "--after is a concept of a run; it does nothing with --model")
        require(
            not self.model or self.strength == 1,
            "--strength goes between a run's base model and its weights; with --model it is not known what was taught",
        )
        for name in ("tokens", "variant", "tokenizer", "prediction_type"):
            require(not self.run or not getattr(self, name), f"--{name} belongs to --model; a run knows its own")
        for name, known in (("prompt_syntax", get_args(Syntax)), ("compute", _COMPUTE)):
            value = getattr(self, name)
            require(value in known, f"{name}={value!r}; known: {', '.join(filter(None, known))}")
        require(self.num > 0, f"num={self.num} must be positive")
        check_seed(self.seed)
        check_strength(self.strength)
        require(self.clip_skip > 0, f"clip_skip={self.clip_skip} must be positive; 1 takes the last layer")
        for name in ("width", "height"):
            _check_side(name, getattr(self, name))
        for prompt in (*self.prompts, self.negative_prompt):
            require(_is_text(prompt), f"the prompt {prompt!r} holds bytes that are no UTF-8 text")

    def sampling(self, settings: SampleSettings) -> SampleSettings:
        """Sampling settings with what the request changes."""
        return sampling(settings, self.sampler, self.steps, self.guidance_scale, self.negative_prompt)


def _check_side(name: str, pixels: int) -> None:
    if not pixels:
        return
    near = {max(_UNIT, pixels // _UNIT * _UNIT), max(_UNIT, -(-pixels // _UNIT) * _UNIT)}
    require(
        pixels > 0 and pixels % _UNIT == 0,
        f"{name}={pixels} must be a multiple of {_UNIT}; near it: {' and '.join(map(str, sorted(near)))}",
    )
    require(pixels <= _LARGEST, f"{name}={pixels} is more than {_LARGEST} pixels")


def _is_text(prompt: str) -> bool:
    try:
        prompt.encode()
    except UnicodeEncodeError:  # of an argument in another encoding
        return False
    return True


def sampling(
    settings: SampleSettings, sampler: str = "", steps: int = 0, guidance_scale: float = -1.0, negative_prompt: str = ""
) -> SampleSettings:
    """A run's sampling settings with what a person asks for instead; empty, 0 and negative values change nothing.

    Raises SettingsError for a value that cannot be.
    """
    require(math.isfinite(guidance_scale), f"guidance_scale={guidance_scale} must be a finite number")
    changes: dict[str, Any] = {"negative_prompt": negative_prompt, "sampler": sampler, "steps": steps}
    changes = {name: value for name, value in changes.items() if value}
    if guidance_scale >= 0:
        changes["guidance_scale"] = guidance_scale
    return dataclasses.replace(settings, **changes)
