"""What the engine asks of a method. A method is a frozen dataclass whose fields are its hyperparameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cns_jax.core.types import Batch, Concept
from cns_jax.data.captions import training_prompts
from cns_jax.methods.applied import Applied

Logs = dict[str, jax.Array]
"""Named scalars of a step."""


@dataclass(frozen=True)
class Task:
    """One concept as a method sees it, on the host.

    caption_hidden_bld: hidden states of the captions without the token, caption_mask_bl the positions that
    count; calibration_*: the same of the calibration prompts; all None for a method that does not select. row: the
    concept's row among the reserved ones; init_row_d: the embedding of its class word (or of init_word).
    """

    caption_hidden_bld: jax.Array | None
    caption_mask_bl: jax.Array | None
    calibration_hidden_kld: jax.Array | None
    calibration_mask_kl: jax.Array | None
    row: int
    init_row_d: jax.Array


class Step(NamedTuple):
    """What a loss may use; made while a step is traced, so it never crosses jit.

    base: all parameters as loaded; plan: what `begin` fixed; batch: the step's; key: for draws of the method's own.
    predict: (Applied, ids (b, l), noisy latents (b, h, w, c), timesteps (b,)) -> the UNet's output like the latents.
    denoising: Applied -> the loss of eq. 8 on the batch, and its parts for the log.
    """

    base: Mapping[str, Any]
    plan: Any
    batch: Batch
    key: jax.Array
    predict: Callable[[Applied, jax.Array, jax.Array, jax.Array], jax.Array]
    denoising: Callable[[Applied], tuple[jax.Array, Logs]]


class Method(ABC):
    """The contract. Memory, Plan and Trainable are pytrees of the method's own, of fixed shapes, so that one
    compilation serves all concepts. Memory outlives a lesson and is saved after each; Plan is fixed during a lesson;
    Trainable learns.

    protects: whether lessons are protected in text-feature space where `protect.enabled` is auto. protectable: whether
    they can be: Trainable and Memory then have the fields `kernels` (cross-attention K/V, nested as in the UNet) and
    `rows_rd`. selects: whether `begin` reads captions and calibration prompts of its task, to choose what trains; such
    a method has the fields calibration_prompts and positions, as CNS has. prior_switch: the field that decides whether
    there are prior images, and a value with which there are; None: there are none. class_noun: whether the class word
    follows the token in prompts.
    title: what people call the method. learns: what learns beside the token's row, empty if nothing does.

    Fields called lr_... are learning rates.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    protects: ClassVar[bool] = False
    protectable: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    prior_switch: ClassVar[tuple[str, Any] | None] = None
    class_noun: ClassVar[bool] = True
    title: ClassVar[str]
    learns: ClassVar[str] = ""
    name: str

    @property
    def prior_weight(self) -> float:
        """Weight of the prior images' loss beside the concept images' (lambda of eq. 8); 0: there are none."""
        return 0.0

    @property
    def detach_begin(self) -> bool:
        """No gradient through the key and value of the begin token."""
        return False

    def prompts(self, concept: Concept, views: int, seed: int) -> list[str]:
        """What the views of the concept's images are trained with: `views` prompts an image, image after image."""
        del seed
        return [prompt for prompt in training_prompts(concept) for _ in range(views)]

    @abstractmethod
    def empty(self, base: Mapping[str, Any], rows: int, width: int) -> Any:
        """Memory before any concept, with `rows` concept rows of `width`; base may be shapes.

        It is saved by the names of its fields; where it has the length of `rows` first, a run that reserves more rows
        later adds zeros at the end.
        """

    @abstractmethod
    def begin(self, key: jax.Array, base: Mapping[str, Any], memory: Any, task: Task) -> tuple[Any, Any, dict]:
        """Start a concept, on the host: Trainable, Plan, and statistics for the ledger.

        The step donates Trainable, which therefore shares no array with memory. Before the first step, `applied` gives
        the model that was sampled before. Raises ValueError if the task's row is not a reserved one.
        """

    @abstractmethod
    def told(self, statistics: Mapping[str, float]) -> str:
        """What a lesson trains, for people, from the statistics of `begin`."""

    @abstractmethod
    def shapes(self, base: Mapping[str, Any], memory: Any) -> tuple[Any, Any]:
        """Shapes of the first two of `begin`, from those of base and memory."""

    @abstractmethod
    def applied(self, base: Mapping[str, Any], plan: Any, trainable: Any) -> Applied:
        """What the networks run with during a lesson; pure and differentiable in `trainable`."""

    def loss(self, step: Step, trainable: Any) -> tuple[jax.Array, Logs]:
        """What a step descends, and scalars for the log; `penalty` is not in it unless the method adds it here."""
        return step.denoising(self.applied(step.base, step.plan, trainable))

    @abstractmethod
    def optimizer(self, plan: Any) -> optax.GradientTransformation:
        """Over Trainable. The structure of its state does not depend on the plan, whose values may be traced."""

    def penalty(self, plan: Any, trainable: Any) -> jax.Array:
        """The method's regularizer, which the log calls l_reg; the loss or the optimizer applies it."""
        del plan, trainable
        return jnp.zeros(())

    def mask(self, plan: Any, trainable: Any) -> Any:
        """Which of the cross-attention kernels' weights may differ after the lesson; bool, as these are nested. None:
        the method does not choose weights."""
        del plan, trainable

    @abstractmethod
    def commit(self, memory: Any, plan: Any, trainable: Any) -> Any:
        """Memory after the concept."""

    @abstractmethod
    def sampled(self, base: Mapping[str, Any], memory: Any) -> Applied:
        """What to sample with after the lessons that memory holds. An Applied without `low_rank` is an ordinary Stable
        Diffusion, which every format of `export` takes."""
