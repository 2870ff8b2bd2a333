"""What the lessons did to everything else: prompts without any concept, before and after, at equal seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cns_jax.engine.draw.kept import base_pictures
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.measure.judging import load_judge
from cns_jax.engine.settings import MINIATURE, SampleSettings
from cns_jax.evals.clip_scores import ClipScorer, clip_t
from cns_jax.evals.control import control_pictures, control_prompts, graded
from cns_jax.neurons.calibration import DIVERSE_PROMPTS


def zero_shot(stages: Stages, scorer: ClipScorer, count: int, seed: int, sample: SampleSettings) -> dict[str, Any]:
    """Of `count` pictures without a concept, by the base model and after all lessons: mean cosine with the prompt
    (clip_t), mean cosine between the two pictures of a prompt (unchanged; 1: all alike) and, to hold it to, between
    pictures of two prompts (unrelated, None for one prompt), and for the miniature what the judge finds right: the
    share by attribute (control) and of each picture (shown). Empty if count is 0."""
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
        "unrelated": _unrelated(seen["before"], prompts),
    }
    if miniature:
        judge = load_judge()
        marks = {when: graded(judge, images, pictures) for when, images in (("before", before), ("after", after))}
        out["control"] = {when: by_attribute for when, (by_attribute, _) in marks.items()}
        out["shown"] = {when: by_picture for when, (_, by_picture) in marks.items()}
    return out


def _unrelated(seen_nd: np.ndarray, prompts: Sequence[str]) -> float | None:
    """Mean cosine between pictures of different prompts; None if there is but one prompt."""
    unit_nd = seen_nd / np.linalg.norm(seen_nd, axis=1, keepdims=True)
    other_nn = np.asarray(prompts)[:, None] != np.asarray(prompts)[None]
    return float((unit_nd @ unit_nd.T)[other_nn].mean()) if other_nn.any() else None
