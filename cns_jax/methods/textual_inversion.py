"""Textual Inversion (Gal et al., ICLR 2023, arXiv:2208.01618): a concept is one embedding, and nothing else learns."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cns_jax.core.settings import require
from cns_jax.core.types import STYLE, Concept
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Method, Task
from cns_jax.methods.parts import adam, check_numbers, check_row, keep_row, no_rows, one_hot, with_row

_OBJECT = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}",
    "a photo of a clean {}", "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}",
    "a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}", "a cropped photo of a {}",
    "a photo of the {}", "a good photo of the {}", "a photo of one {}", "a close-up photo of the {}",
    "a rendition of the {}", "a photo of the clean {}", "a rendition of a {}", "a photo of a nice {}",
    "a good photo of a {}", "a photo of the nice {}", "a photo of the small {}", "a photo of the weird {}",
    "a photo of the large {}", "a photo of a cool {}", "a photo of a small {}",
)  # fmt: skip
_STYLE = (
    "a painting in the style of {}", "a rendering in the style of {}", "a cropped painting in the style of {}",
    "the painting in the style of {}", "a clean painting in the style of {}", "a dirty painting in the style of {}",
    "a dark painting in the style of {}", "a picture in the style of {}", "a cool painting in the style of {}",
    "a close-up painting in the style of {}", "a bright painting in the style of {}",
    "a good painting in the style of {}", "a rendition in the style of {}", "a nice painting in the style of {}",
    "a small painting in the style of {}", "a weird painting in the style of {}", "a large painting in the style of {}",
)  # fmt: skip


class Rows(NamedTuple):
    """Both what learns and what outlives a concept. rows_rd: all concept rows."""

    rows_rd: jax.Array


class Plan(NamedTuple):
    """What is fixed during a concept; arrays only. row_r: one-hot bool of its token row."""

    row_r: jax.Array
    lr_token: jax.Array


@dataclass(frozen=True)
class TextualInversion(Method):
    """Hyperparameters. A concept costs its row of the token table (768 numbers for SD-1.5); earlier rows are frozen, so
    nothing is forgotten.

    name: of the method. lr_token: learning rate of the token's row; the comparison in CNS's paper trains 1,500 steps at
    5e-4. templates: "paper" trains each view of a picture with one of the paper's neutral prompts ("a photo of a
    <cat1>"), drawn once; "captions" with the picture's own caption, in which the token takes the class word's place.

    Raises SettingsError, naming the field, for a value out of range.
    """

    name: Literal["textual_inversion"] = "textual_inversion"
    lr_token: float = 5e-4
    templates: Literal["paper", "captions"] = "paper"

    title: ClassVar[str] = "Textual Inversion"
    class_noun: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_numbers(self, ("lr_token",))
        known = ("paper", "captions")
        require(self.templates in known, f"method.templates={self.templates!r} must be one of {', '.join(known)}")

    def prompts(self, concept: Concept, views: int, seed: int) -> list[str]:
        """A drawn template for each view, or the pictures' captions."""
        if self.templates == "captions":
            return super().prompts(concept, views, seed)
        known = _STYLE if concept.kind == STYLE else _OBJECT
        drawn = np.random.default_rng((seed, zlib.crc32(concept.name.encode())))
        indices = drawn.integers(len(known), size=len(concept.captions) * views)
        return [known[i].format(concept.token) for i in indices]

    def empty(self, base: Mapping[str, Any], rows: int, width: int) -> Rows:
        """Zero rows (rows, width)."""
        return Rows(no_rows(rows, width))

    def begin(
        self, key: jax.Array, base: Mapping[str, Any], memory: Rows, task: Task
    ) -> tuple[Rows, Plan, dict[str, float]]:
        """Start from the embedding of the class word; raises ValueError if the task's row is not a reserved one."""
        check_row(memory.rows_rd, task.row)
        trainable, plan = self._start(memory, jax.device_put(np.int32(task.row)), task.init_row_d)
        return trainable, plan, {"rows": 1.0}

    def told(self, statistics: Mapping[str, float]) -> str:
        """One row learns."""
        return "one token row learns"

    def shapes(self, base: Mapping[str, Any], memory: Rows) -> tuple[Rows, Plan]:
        """Of what `begin` returns; memory may be shapes too."""
        init_row = jax.ShapeDtypeStruct(memory.rows_rd.shape[1:], jnp.float32)
        return jax.eval_shape(self._start, memory, jax.ShapeDtypeStruct((), jnp.int32), init_row)

    def _start(self, memory: Rows, row: jax.Array, init_row_d: jax.Array) -> tuple[Rows, Plan]:
        row_r = one_hot(memory.rows_rd, row)
        return Rows(with_row(memory.rows_rd, row_r, init_row_d)), Plan(row_r, jax.device_put(np.float32(self.lr_token)))

    def applied(self, base: Mapping[str, Any], plan: Plan, trainable: Rows) -> Applied:
        """The base model with the rows."""
        return Applied(base, trainable.rows_rd)

    def optimizer(self, plan: Plan) -> optax.GradientTransformation:
        """Adam; only the concept's own row moves."""
        return optax.chain(adam(plan.lr_token), keep_row(plan.row_r))

    def commit(self, memory: Rows, plan: Plan, trainable: Rows) -> Rows:
        """The rows."""
        return trainable

    def sampled(self, base: Mapping[str, Any], memory: Rows) -> Applied:
        """The base model with the rows."""
        return Applied(base, memory.rows_rd)
