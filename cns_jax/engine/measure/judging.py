"""The shipped judge, for runs whose concepts are the miniature's drawn ones."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from cns_jax.core.tree import flatten, like
from cns_jax.core.types import SCENE, STYLE, SUBJECT
from cns_jax.engine.runs.concepts import drawn_set
from cns_jax.engine.runs.source import miniature_folder
from cns_jax.engine.settings import RunSettings
from cns_jax.evals.world_judge import JUDGE, found, judged
from cns_jax.miniature.concepts import MiniConcept, picture_with
from cns_jax.miniature.world import SIZE
from cns_jax.weights.tensors import WeightsMismatch

JUDGE_FILE = "judge.safetensors"


@functools.cache  # an evaluation asks for it twice, a benchmark in every run
def load_judge() -> Any:
    """The shipped judge's parameters."""
    return read_judge(miniature_folder())


def read_judge(folder: Path) -> Any:
    """The judge's parameters from a miniature's folder. Raises WeightsMismatch if the file is not of this judge."""
    file = folder / JUDGE_FILE
    flat = {name.replace("/", "."): leaf for name, leaf in load_file(file).items()}
    wanted = jax.eval_shape(lambda: JUDGE.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))["params"]
    shapes = {k: v.shape for k, v in flatten(wanted).items()}
    if {k: v.shape for k, v in flat.items()} != shapes:
        raise WeightsMismatch(f"{file} is the judge of another version; train it again with cns_jax.pretrain")
    return like({k: np.asarray(v, np.float32) for k, v in flat.items()}, wanted)


def judge_id() -> str:
    """Fingerprint of the shipped judge's file."""
    return hashlib.sha256((miniature_folder() / JUDGE_FILE).read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class WorldJudge:
    """The judge and the concepts that it can tell, by name."""

    params: Any
    concepts: Mapping[str, MiniConcept]

    @classmethod
    def of(cls, settings: RunSettings) -> WorldJudge | None:
        """None for a run on other concepts: nobody can judge those."""
        concepts = drawn_set(settings)
        return cls(load_judge(), concepts) if concepts else None

    def look(self, images_u8: np.ndarray, asked: Sequence[Sequence[str]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Of pictures (n, h, w, 3) and the names of the concepts that each should show: whether all appeared, float
        (n,), and the judge's single grades of those concepts' attributes, NaN where there is nothing to tell: a
        subject's concept says nothing about scene and style, and the prompt may ask for any."""
        shown = [[self.concepts[name] for name in names] for names in asked]
        grades = judged(self.params, images_u8, [picture_with(concepts) for concepts in shown])
        kinds = [{concept.kind for concept in concepts} for concepts in shown]
        told = {
            name: np.where([(name if name in (SCENE, STYLE) else SUBJECT) in own for own in kinds], values, np.nan)
            for name, values in grades.items()
        }
        return found(grades, shown), told
