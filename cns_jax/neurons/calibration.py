"""Calibration prompts: what the general neurons (eq. 5) are found with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SUBJECTS = (
    "a cat sleeping on a sofa", "a dog running through a field", "a red sports car on a highway", "a bowl of fruit",
    "an old man reading a newspaper", "a child flying a kite", "a sailboat on a calm lake", "a cup of coffee",
    "a wooden chair by a window", "a bird on a branch", "a mountain under a clear sky", "a city street at night",
    "a vase of sunflowers", "a train crossing a bridge", "a woman playing the violin", "a plate of spaghetti",
    "a lighthouse in a storm", "a backpack on a bench", "a horse in a meadow", "a robot in a workshop",
    "a snowy forest path", "a sandy beach at noon", "a castle on a hill", "a fish in a pond", "a desk with a laptop",
)  # fmt: skip
_FRAMES = ("a photo of {}", "an oil painting of {}", "a pencil drawing of {}", "a close-up picture of {}")

DIVERSE_PROMPTS: tuple[str, ...] = tuple(frame.format(s) for s in _SUBJECTS for frame in _FRAMES)
"""100 prompts, 25 subjects in 4 frames."""


def draw(prompts: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` different prompts, seeded; all of them if there are fewer."""
    order = np.random.default_rng(seed).permutation(len(prompts))
    return tuple(prompts[i] for i in order[:count])
