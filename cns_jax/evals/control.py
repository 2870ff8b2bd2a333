"""Prompt control on the miniature's world: does the picture show the scene, style, colour and subject asked for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.evals.judge import Judge, Labels, grades, verdict
from cns_jax.miniature.world import COLORS, SCENES, STYLES, SUBJECTS, Picture, prompt, render, sample_picture

ATTRIBUTES = ("scene", "style", "color", "subject")


def world_judge() -> Judge:
    """The judge sized for the world's labels."""
    return Judge(len(STYLES), len(SCENES), len(SUBJECTS), len(COLORS))


def labels_of(pictures: Sequence[Picture]) -> Labels:
    """The world's labels as arrays."""
    color = np.full((len(pictures), len(SUBJECTS)), -1, np.int32)
    for row, picture in enumerate(pictures):
        for subject in picture.subjects:
            color[row, SUBJECTS.index(subject.kind)] = COLORS.index(subject.color)
    style = np.asarray([STYLES.index(p.style) for p in pictures], np.int32)
    scene = np.asarray([SCENES.index(p.scene) for p in pictures], np.int32)
    return Labels(jnp.asarray(style), jnp.asarray(scene), jnp.asarray(color))


def control_pictures(count: int, seed: int = 1234) -> list[Picture]:
    """The suite's specifications: `count` draws from the world's own distribution at a fixed seed."""
    return [sample_picture(np.random.default_rng([seed, i])) for i in range(count)]


def control_prompts(pictures: Sequence[Picture]) -> list[str]:
    """Their full captions."""
    return [prompt(p) for p in pictures]


def real_renders(pictures: Sequence[Picture], seed: int = 4321) -> np.ndarray:
    """Fresh renders of the same specifications, uint8 (n, size, size, 3): what the judge can get at best."""
    return np.stack([render(p, np.random.default_rng([seed, i])) for i, p in enumerate(pictures)])


def grade(judge_params: Any, images_u8: np.ndarray, pictures: Sequence[Picture], batch: int = 64) -> dict[str, float]:
    """Share of pictures that show each attribute, by the judge. images uint8 (n, h, w, 3)."""
    judge = world_judge()
    classify = jax.jit(lambda p, x: verdict(judge, p, x.astype(jnp.float32) / 127.5 - 1.0))
    totals: dict[str, list[np.ndarray]] = {name: [] for name in ATTRIBUTES}
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch]
        seen = classify(judge_params, jnp.asarray(images_u8[start : start + batch]))
        for name, right in grades(seen, labels_of(part)).items():
            totals[name].append(np.asarray(right))
    return {name: float(np.concatenate(values).mean()) for name, values in totals.items()}
