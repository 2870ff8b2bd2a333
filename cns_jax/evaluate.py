"""Measure a model: python -m cns_jax.evaluate --suite=control [--run=runs/mini]

Suites: control (does a picture show the scene, style, colour and subject that its prompt asks for?).
"""

from __future__ import annotations

import dataclasses
import sys

from absl import app, flags

_SUITE = flags.DEFINE_enum("suite", "control", ["control"], "what to measure")
_MODEL = flags.DEFINE_string("model", "miniature", "miniature, or the path of a diffusers folder")
_RUN = flags.DEFINE_string("run", "", "measure this training run's weights instead")
_AFTER = flags.DEFINE_string("after", "", "with --run: the weights right after this concept (default: the last)")
_NUM = flags.DEFINE_integer("num", 256, "prompts", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the first picture; the next ones count up")
_SAMPLER = flags.DEFINE_string(
    "sampler", "dpm++2m", "a sampler's name, or auto: the one of the model's scheduler_config.json"
)
_STEPS = flags.DEFINE_integer("steps", 20, "denoising steps", lower_bound=1)
_GUIDANCE = flags.DEFINE_float("guidance_scale", 4.0, "classifier-free guidance", lower_bound=0.0)
_OUT = flags.DEFINE_string("out", "", "folder for control.json and the grid (default: RUN/control or runs/control)")


def main(_: list[str]) -> None:
    """Flags to the suite to a table."""
    from cns_jax.engine.control import ControlRequest, control
    from cns_jax.engine.progress import console

    console()
    try:
        request = ControlRequest(
            model=_MODEL.value, run=_RUN.value, after=_AFTER.value, num=_NUM.value, seed=_SEED.value, out=_OUT.value
        )
        sample = dataclasses.replace(
            request.sample, sampler=_SAMPLER.value, steps=_STEPS.value, guidance_scale=_GUIDANCE.value
        )
        result = control(dataclasses.replace(request, sample=sample))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(result.table())
    print(f"Look at {result.grid}")


if __name__ == "__main__":
    app.run(main)
