"""Prompt control on the miniature's world: does the picture show what its prompt asks for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cns_jax.evals.world_judge import judged
from cns_jax.miniature.world import Picture, prompt, render, sample_picture

ATTRIBUTES = ("scene", "style", "subject", "color", "pattern", "second", "quirk")
"""second: the pattern's colour. Pattern and quirk count where the prompt asks for one."""


def control_pictures(count: int, seed: int = 1234) -> list[Picture]:
    """The suite's specifications: `count` draws from the world's own distribution at a fixed seed."""
    return [sample_picture(np.random.default_rng([seed, i])) for i in range(count)]


def control_prompts(pictures: Sequence[Picture]) -> list[str]:
    """Their full captions."""
    return [prompt(p) for p in pictures]


def real_renders(pictures: Sequence[Picture], seed: int = 4321) -> np.ndarray:
    """Fresh renders of the same specifications, uint8 (n, size, size, 3): what the judge can get at best."""
    return np.stack([render(p, np.random.default_rng([seed, i])) for i, p in enumerate(pictures)])


def grade(judge_params: Any, images_u8: np.ndarray, pictures: Sequence[Picture]) -> dict[str, float]:
    """Share of pictures that show each attribute, by the judge, among those asked for it; without attributes that
    none is asked for. images uint8 (n, h, w, 3)."""
    return graded(judge_params, images_u8, pictures)[0]


def graded(
    judge_params: Any, images_u8: np.ndarray, pictures: Sequence[Picture]
) -> tuple[dict[str, float], list[float]]:
    """What `grade` returns, and of each picture the share of its attributes that it shows."""
    right = judged(judge_params, images_u8, pictures)
    asked = {name: np.ones(len(pictures), bool) for name in ATTRIBUTES}
    asked["pattern"] = asked["second"] = ~np.isnan(right["second"])
    asked["quirk"] = np.asarray([any(s.pattern and s.pattern.quirk for s in p.subjects) for p in pictures])
    shares = {name: float(right[name][where].mean()) for name, where in asked.items() if where.any()}
    each = np.stack([np.where(where, right[name], np.nan) for name, where in asked.items()])
    return shares, np.nanmean(each, axis=0).tolist()
