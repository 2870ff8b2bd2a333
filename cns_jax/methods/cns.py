"""Concept Neuron Selection (Liao et al., ICCV 2025, arXiv:2510.02296)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cns_jax.core.rng import stream
from cns_jax.core.settings import require
from cns_jax.core.types import Trainable
from cns_jax.methods.base import Task
from cns_jax.methods.parts import (
    KERNELS,
    ROWS,
    OnKernels,
    adam,
    beginning,
    check_numbers,
    check_row,
    kernels_of,
    no_rows,
    on_kernels,
)
from cns_jax.neurons import select
from cns_jax.neurons.regularize import continual_regularization, keep_selected, regularization_loss
from cns_jax.neurons.score import cross_attention_kernels, feature_norms
from cns_jax.neurons.statistics import describe

Positions = Literal["caption", "caption+eot", "all"]


class Memory(NamedTuple):
    """What outlives a concept. union: OR of all concept masks; kernels: W_{m-1}; rows_rd: all concept rows."""

    union: Any
    kernels: Any
    rows_rd: jax.Array


class Plan(NamedTuple):
    """What is fixed during a concept; arrays only, so that every concept shares one compilation.

    mask: its neurons; m_reg: those that earlier concepts use too; previous, base: W_{m-1}, W_0; row_r: one-hot
    bool of its token row.
    """

    mask: Any
    m_reg: Any
    previous: Any
    base: Any
    row_r: jax.Array
    lambda1: jax.Array
    lambda2: jax.Array
    lr_neurons: jax.Array
    lr_token: jax.Array


@dataclass(frozen=True)
class CNS(OnKernels):
    """Hyperparameters; defaults are the paper's, the lambdas ours (the paper gives none).

    name: of the method. selection: "concept" (the method), "random" (as many random weights), "all" (full K/V
    tuning). scored: the weights that are scored. positions: the tokens that feature norms sum over. adam_epsilon: of
    the neurons' Adam (Kingma & Ba, arXiv:1412.6980); near the size of their gradients, weights that the loss hardly
    asks to move stay where they are instead of wandering at the full rate.

    ratio: the share of a layer's weights, the highest scored first, that count as a prompt's neurons.
    calibration_prompts: how many prompts show which neurons serve everything. lambda1: strength of L_reg on weights
    that earlier concepts use, towards their values then. lambda2: the same, towards the base model's values.
    lr_neurons, lr_token: learning rates of the selected weights and of the token's row. prior_weight: of the prior
    images' loss beside the concept's. detach_begin: no gradient through the key and value of the begin token.

    lambda1 = lambda2 = 0 switches L_reg off.

    Raises SettingsError, naming the field, for a value out of range.
    """

    name: Literal["cns"] = "cns"
    ratio: float = 0.3
    calibration_prompts: int = 20
    positions: Positions = "caption+eot"
    scored: Literal["base", "current"] = "base"
    selection: Literal["concept", "random", "all"] = "concept"
    lambda1: float = 1.0
    lambda2: float = 0.1
    lr_neurons: float = 3e-5
    lr_token: float = 5e-4
    adam_epsilon: float = 1e-8
    prior_weight: float = 1.0
    detach_begin: bool = True

    protectable: ClassVar[bool] = True
    selects: ClassVar[bool] = True
    title: ClassVar[str] = "CNS"
    learns: ClassVar[str] = "weights chosen for each concept among the cross-attention K/V weights"
    prior_switch: ClassVar[tuple[str, Any] | None] = ("prior_weight", 1.0)

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value, known = getattr(self, name), get_args(hint)
            if get_origin(hint) is Literal:
                require(value in known, f"method.{name}={value!r} must be one of {', '.join(map(repr, known))}")
        # at 1 the general mask would hold every weight, and a concept none
        require(0 < self.ratio < 1, f"method.ratio={self.ratio} must be above 0 and below 1")
        require(self.calibration_prompts > 0, f"method.calibration_prompts={self.calibration_prompts} must be positive")
        check_numbers(self, ("lambda1", "lambda2", "lr_neurons", "lr_token", "prior_weight"))
        if self.lambda2 > 0.1 * self.lambda1 * (1 + 1e-9):  # 3e-5 is a tenth of 3e-4, but not in binary
            warnings.warn(
                f"method.lambda2={self.lambda2} is over a tenth of lambda1={self.lambda1}: it pulls the weights that "
                "concepts share back to the base model and so fades old concepts",
                stacklevel=2,
            )

    def empty(self, base: Mapping[str, Any], rows: int, width: int) -> Memory:
        """No mask, W_0 in float32, zero rows (rows, width)."""
        kernels = kernels_of(base)
        return Memory(select.constant(kernels, False), kernels, no_rows(rows, width))

    def begin(
        self, key: jax.Array, base: Mapping[str, Any], memory: Memory, task: Task
    ) -> tuple[Trainable, Plan, dict[str, float]]:
        """Select the concept's neurons (eq. 3 to 6) and set up its regularizer (eq. 7).

        The kernels of the Trainable are copies, since the step donates it. Raises ValueError if the task's row
        is not a reserved one, or if there is nothing to select with.
        """
        check_row(memory.rows_rd, task.row)
        kernels = cross_attention_kernels(base["unet"])
        scored = kernels if self.scored == "base" else memory.kernels
        assert task.caption_hidden_bld is not None and task.caption_mask_bl is not None
        assert task.calibration_hidden_kld is not None and task.calibration_mask_kl is not None
        captions = feature_norms(task.caption_hidden_bld, task.caption_mask_bl)
        calibration = feature_norms(task.calibration_hidden_kld, task.calibration_mask_kl)
        selection = select.concept_neurons(scored, captions, calibration, self.ratio)
        mask = self._mask(key, selection)
        trainable, plan = self._start(kernels, memory, mask, jax.device_put(np.int32(task.row)), task.init_row_d)
        return trainable, plan, describe(selection, mask, plan.m_reg, self.ratio)

    def told(self, statistics: Mapping[str, float]) -> str:
        """How many neurons learn, and how many of them are shared."""
        if statistics["mask_share"] == 1:
            return f"all {statistics['neurons']:.0f} K/V weights learn"
        return (
            f"{statistics['neurons']:.0f} neurons ({100 * statistics['mask_share']:.1f} % of K/V), "
            f"{statistics.get('regularized', 0):.0f} of them shared with earlier concepts"
        )

    def shapes(self, base: Mapping[str, Any], memory: Memory) -> tuple[Trainable, Plan]:
        """Of what `begin` returns; base and memory may be shapes too."""
        kernels, row = cross_attention_kernels(base["unet"]), jax.ShapeDtypeStruct((), jnp.int32)
        init_row = jax.ShapeDtypeStruct(memory.rows_rd.shape[1:], jnp.float32)
        return jax.eval_shape(self._start, kernels, memory, memory.union, row, init_row)

    def _start(
        self, kernels: Any, memory: Memory, mask: Any, row: jax.Array, init_row_d: jax.Array
    ) -> tuple[Trainable, Plan]:
        """What a lesson starts from when its neurons are known. kernels: W_0 in the dtype that it is kept in."""
        values = self.lambda1, self.lambda2, self.lr_neurons, self.lr_token
        scalars = (jax.device_put(np.float32(value)) for value in values)
        trainable, m_reg, w_base, row_r = _beginning(kernels, memory, mask, row, init_row_d)
        return trainable, Plan(mask, m_reg, memory.kernels, w_base, row_r, *scalars)

    def mask(self, plan: Plan, trainable: Trainable) -> Any:
        """The concept's neurons."""
        return plan.mask

    def _mask(self, key: jax.Array, selection: select.Selection) -> select.NeuronMask:
        """What trains: the concept's neurons, or what an ablation puts in their place."""
        if self.selection == "all":
            return select.constant(selection.concept, True)
        if select.count(selection.concept) == 0:
            warnings.warn(
                "no concept neurons: every weight that all captions select is selected by all calibration prompts too, "
                "so only the token learns; raise method.calibration_prompts or give captions that are more alike",
                stacklevel=3,
            )
        if self.selection == "random":
            return select.random_like(stream(key, "random mask"), selection.concept)
        return selection.concept

    def optimizer(self, plan: Plan) -> optax.GradientTransformation:
        """L_reg's gradient, Adam for tokens and for neurons, then the masks over single weights."""
        regularize = continual_regularization(plan.previous, plan.base, plan.m_reg, plan.lambda1, plan.lambda2)
        return optax.chain(
            on_kernels(regularize),
            optax.masked(adam(plan.lr_token), ROWS),
            optax.masked(adam(plan.lr_neurons, self.adam_epsilon), KERNELS),
            keep_selected(Trainable(plan.mask, plan.row_r[:, None])),
        )

    def penalty(self, plan: Plan, trainable: Trainable) -> jax.Array:
        """L_reg of eq. 7."""
        p = plan
        return regularization_loss(trainable.kernels, p.previous, p.base, p.m_reg, p.lambda1, p.lambda2)

    def commit(self, memory: Memory, plan: Plan, trainable: Trainable) -> Memory:
        """The union grows by the mask; kernels and rows are the trained ones."""
        return Memory(select.union(memory.union, plan.mask), trainable.kernels, trainable.rows_rd)


@jax.jit  # one program: a start compiles thirty small ones beside the step's
def _beginning(
    kernels: Any, memory: Memory, mask: Any, row: jax.Array, init_row_d: jax.Array
) -> tuple[Trainable, Any, Any, jax.Array]:
    """What `beginning` gives, and between its parts m_reg and W_0 in float32."""
    trainable, row_r = beginning(memory.kernels, memory.rows_rd, row, init_row_d)
    w_base = jax.tree.map(lambda w: w.astype(jnp.float32), kernels)
    return trainable, select.intersect(mask, memory.union), w_base, row_r
