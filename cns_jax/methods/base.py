"""What the engine asks of a method. A method is a frozen dataclass whose fields are its hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import optax

from cns_jax.core.types import Trainable


@dataclass(frozen=True)
class Task:
    """One concept as a method sees it.

    caption_hidden_bld: hidden states of the captions without the token, caption_mask_bl the positions that
    count; calibration_*: the same of the calibration prompts; all None for a method that does not select. row: the
    concept's row among the reserved ones; init_row_d: the embedding that it starts from.
    """

    caption_hidden_bld: jax.Array | None
    caption_mask_bl: jax.Array | None
    calibration_hidden_kld: jax.Array | None
    calibration_mask_kl: jax.Array | None
    row: int
    init_row_d: jax.Array


class Method(Protocol):
    """The contract, of a frozen dataclass. Memory and Plan are pytrees of fixed shapes, so that one compilation serves
    all concepts.

    protects: whether lessons are protected in text-feature space where `protect.enabled` is auto. selects: whether
    `begin` reads captions and calibration prompts of its task, to choose what trains; else these may be missing. A
    method that selects has the fields calibration_prompts and positions, as CNS has. Fields called lr_... are rates.
    prior_switch: the field that decides whether there are prior images, and a value with which there are.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    protects: ClassVar[bool]
    selects: ClassVar[bool]
    prior_switch: ClassVar[tuple[str, Any]]

    @property
    def name(self) -> str:
        """What METHODS calls it."""

    @property
    def prior_weight(self) -> float:
        """Weight of the prior images' loss beside the concept images' (lambda of eq. 8); 0: there are none."""

    @property
    def detach_begin(self) -> bool:
        """No gradient through the key and value of the begin token."""

    def empty(self, base: Mapping[str, Any], rows: int, width: int) -> Any:
        """Memory before any concept."""

    def recalled(self, union: Any, kernels: Any, rows_rd: Any) -> Any:
        """Memory after earlier concepts, from what is kept of them: masks' union, kernels, and rows (r, d)."""

    def begin(self, key: jax.Array, base: Mapping[str, Any], memory: Any, task: Task) -> tuple[Trainable, Any, dict]:
        """Start a concept: what trains, the plan, and statistics for the ledger."""

    def shapes(self, base: Mapping[str, Any], memory: Any) -> tuple[Trainable, Any]:
        """Shapes of the first two of `begin`, from those of base and memory."""

    def mask(self, plan: Any, trainable: Trainable) -> Any:
        """Which weights of the kernels may differ after the lesson; bool, as the kernels are nested."""

    def weights(self, base: Mapping[str, Any], trainable: Trainable) -> Mapping[str, Any]:
        """Parameters of the UNet for this trainable; pure and differentiable."""

    def optimizer(self, plan: Any) -> optax.GradientTransformation:
        """Over Trainable. The structure of its state does not depend on the plan, whose values may be traced."""

    def penalty(self, plan: Any, trainable: Trainable) -> jax.Array:
        """The method's regularizer, for the log; the optimizer applies it."""

    def commit(self, memory: Any, plan: Any, trainable: Trainable) -> Any:
        """Memory after the concept."""

    def merged(self, base: Mapping[str, Any], memory: Any) -> tuple[Mapping[str, Any], jax.Array]:
        """UNet parameters and concept rows for sampling and export."""
