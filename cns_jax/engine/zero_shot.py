"""What the lessons did to everything else: prompts without any concept, before and after, at equal seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from cns_jax.engine.drawing import base_pictures
from cns_jax.engine.judging import load_judge
from cns_jax.engine.settings import SampleSettings
from cns_jax.engine.stages import Stages
from cns_jax.engine.studio import MINIATURE
from cns_jax.evals.clip_scores import ClipScorer, clip_t
from cns_jax.evals.control import control_pictures, control_prompts, grade
from cns_jax.neurons.calibration import DIVERSE_PROMPTS


def zero_shot(stages: Stages, scorer: ClipScorer, count: int, seed: int, sample: SampleSettings) -> dict[str, Any]:
    """Of `count` pictures without a concept, by the base model and after all lessons: mean cosine with the prompt
    (clip_t), mean cosine between the two pictures of a prompt (unchanged; 1: all alike), and for the miniature the
    share that the judge finds right by attribute (control). Empty if count is 0."""
    if count == 0:
        return {}
    miniature = stages.learned.settings.model == MINIATURE
    pictures = control_pictures(count) if miniature else []
    prompts = control_prompts(pictures) if miniature else np.resize(DIVERSE_PROMPTS, count).tolist()
    seeds = [seed + i for i in range(count)]
    before = base_pictures(stages, prompts, seeds, sample)
    after = stages.images(stages.last, prompts, seeds, sample)
    texts, seen = scorer.texts(prompts), {"before": scorer.images(before), "after": scorer.images(after)}
    out: dict[str, Any] = {
        "prompts": count,
        "clip_t": {when: float(clip_t(images, texts).mean()) for when, images in seen.items()},
        "unchanged": float(clip_t(seen["before"], seen["after"]).mean()),
    }
    if miniature:
        judge = load_judge()
        out["control"] = {"before": grade(judge, before, pictures), "after": grade(judge, after, pictures)}
    return out
