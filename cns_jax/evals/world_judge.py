"""The judge on the miniature's world: its classes, the truth of a picture, and whether a held-out concept appeared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.batches import in_batches
from cns_jax.core.xla.compiling import jit
from cns_jax.evals.judge import OF_SUBJECTS, Judge, Labels, grades, verdict
from cns_jax.miniature.concepts import MiniConcept
from cns_jax.miniature.drawing import PATTERNS, PLAIN
from cns_jax.miniature.scenes import HELD_OUT_SCENES
from cns_jax.miniature.styles import HELD_OUT_STYLES
from cns_jax.miniature.subjects import QUIRKS
from cns_jax.miniature.world import COLORS, SCENES, STYLES, SUBJECTS, Picture, SubjectSpec, color_name

_STYLES, _SCENES = (*STYLES, *HELD_OUT_STYLES), (*SCENES, *HELD_OUT_SCENES)
_PATTERNS = (PLAIN, *PATTERNS)
EVEN = tuple(_PATTERNS.index(name) for name in ("stripes", "checks", "halves"))
"""Patterns that cover half of a body, so that either of the two colours may be called the body's."""
_QUIRKS = ("", *sorted({name for names in QUIRKS.values() for name in names}))
_EYES = 2  # plain, odd
_DEFINING = ("subject", "color", "pattern", "second")
_BATCH = 64

JUDGE = Judge(
    (len(_STYLES), len(_SCENES), len(SUBJECTS), len(COLORS), len(_PATTERNS), len(COLORS), len(_QUIRKS), _EYES)
)


def _of_subject(spec: SubjectSpec) -> tuple[int, ...]:
    """Its labels in the order of OF_SUBJECTS."""
    color, pattern = COLORS.index(spec.color), spec.pattern
    if pattern is None:
        return color, 0, -1, 0, 0
    second = -1 if pattern.kind == PLAIN else COLORS.index(color_name(pattern.color))
    return color, _PATTERNS.index(pattern.kind), second, _QUIRKS.index(pattern.quirk), int(pattern.eyes is not None)


def labels_of(pictures: Sequence[Picture]) -> Labels:
    """The truth of pictures. Of what is drawn in a held-out style only the kind is told: colours are lost in it."""
    subject = np.zeros((len(pictures), len(SUBJECTS)), np.int32)
    told = np.full((len(OF_SUBJECTS), len(pictures), len(SUBJECTS)), -1, np.int32)
    for row, picture in enumerate(pictures):
        for spec in picture.subjects:
            column = SUBJECTS.index(spec.kind)
            subject[row, column] = 1
            if picture.style in STYLES:
                told[:, row, column] = _of_subject(spec)
    style = np.asarray([_STYLES.index(p.style) for p in pictures], np.int32)
    scene = np.asarray([_SCENES.index(p.scene) for p in pictures], np.int32)
    return Labels(*(jnp.asarray(leaf) for leaf in (style, scene, subject, *told)))


@jit()
def _grade(params: Any, images_u8: jax.Array, *truth: jax.Array) -> dict[str, jax.Array]:
    return grades(verdict(JUDGE, params, images_u8.astype(jnp.float32) / 127.5 - 1.0), Labels(*truth), EVEN)


def judged(params: Any, images_u8: np.ndarray, pictures: Sequence[Picture]) -> dict[str, np.ndarray]:
    """The judge's grades of pictures uint8 (n, h, w, 3) that should show `pictures`: name -> float32 (n,), 1 where
    right, NaN where there is nothing to tell."""
    return in_batches(partial(_grade, params), _BATCH, images_u8, *map(np.asarray, labels_of(pictures)))


def found(grades: dict[str, np.ndarray], asked: Sequence[Sequence[MiniConcept]]) -> np.ndarray:
    """Whether the specific concepts asked for appeared, float64 (n,), 1 or 0, given the grades of `picture_with` them.

    A new style or scene is the one seen; a subject has its kind, its colour, its pattern and the pattern's colour
    (in a held-out style, which keeps no colours, its kind). Odd eyes and quirks are a few pixels and are told apart.
    """
    out = np.ones(len(asked))
    for row, concepts in enumerate(asked):
        for concept in concepts:
            names = _DEFINING if concept.subject is not None else (concept.kind,)
            out[row] *= all(grades[name][row] != 0 for name in names)  # NaN: nothing to tell
    return out
