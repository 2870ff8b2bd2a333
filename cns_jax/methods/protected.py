"""Protected K/V tuning: all cross-attention K/V weights learn, and protection alone keeps what was there.

Ours, not from a paper (docs/protection.md): Concept Neuron Selection without the selection of neurons and without
L_reg, whose place `cns_jax.protect` takes. It needs no prior images, since general prompts are protected too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cns_jax.core.types import Trainable
from cns_jax.methods.base import Task
from cns_jax.methods.parts import (
    KERNELS,
    ROWS,
    Memory,
    OnKernels,
    adam,
    beginning,
    check_numbers,
    check_row,
    keep_row,
)


class Plan(NamedTuple):
    """What is fixed during a concept; arrays only. row_r: one-hot bool of its token row."""

    row_r: jax.Array
    lr_neurons: jax.Array
    lr_token: jax.Array


@dataclass(frozen=True)
class Protected(OnKernels):
    """All cross-attention K/V weights learn, held by `protect.*` to what earlier and general prompts need of them.

    name: of the method. lr_neurons, lr_token: learning rates of the K/V weights and of the token's row. adam_epsilon:
    of the K/V weights' Adam. detach_begin: no gradient through the key and value of the begin token. prior_images:
    whether steps show prior images, too (train.prior_batch of them); with general prompts protected they are not
    needed.

    Raises SettingsError, naming the field, for a value out of range.
    """

    name: Literal["protected"] = "protected"
    lr_neurons: float = 3e-5
    lr_token: float = 5e-4
    adam_epsilon: float = 1e-8
    detach_begin: bool = True
    prior_images: bool = False

    protects: ClassVar[bool] = True
    protectable: ClassVar[bool] = True
    title: ClassVar[str] = "protected K/V"
    learns: ClassVar[str] = "all cross-attention K/V weights"
    prior_switch: ClassVar[tuple[str, Any] | None] = ("prior_images", True)

    def __post_init__(self) -> None:
        check_numbers(self, ("lr_neurons", "lr_token"))

    @property
    def prior_weight(self) -> float:
        """Of the prior images' loss beside the concept's; 0 if there are none."""
        return float(self.prior_images)

    def begin(
        self, key: jax.Array, base: Mapping[str, Any], memory: Memory, task: Task
    ) -> tuple[Trainable, Plan, dict[str, float]]:
        """Start from all weights as they are; raises ValueError if the task's row is not a reserved one."""
        check_row(memory.rows_rd, task.row)
        trainable, plan = self._start(memory, jax.device_put(np.int32(task.row)), task.init_row_d)
        weights = sum(leaf.size for leaf in jax.tree.leaves(memory.kernels))
        return trainable, plan, {"neurons": float(weights), "mask_share": 1.0}

    def told(self, statistics: Mapping[str, float]) -> str:
        """How many weights learn."""
        return f"all {statistics['neurons']:.0f} K/V weights learn"

    def shapes(self, base: Mapping[str, Any], memory: Memory) -> tuple[Trainable, Plan]:
        """Of what `begin` returns; base and memory may be shapes too."""
        init_row = jax.ShapeDtypeStruct(memory.rows_rd.shape[1:], jnp.float32)
        return jax.eval_shape(self._start, memory, jax.ShapeDtypeStruct((), jnp.int32), init_row)

    def _start(self, memory: Memory, row: jax.Array, init_row_d: jax.Array) -> tuple[Trainable, Plan]:
        trainable, row_r = beginning(memory.kernels, memory.rows_rd, row, init_row_d)
        rates = (jax.device_put(np.float32(value)) for value in (self.lr_neurons, self.lr_token))
        return trainable, Plan(row_r, *rates)

    def optimizer(self, plan: Plan) -> optax.GradientTransformation:
        """Adam for tokens and for kernels; of the rows only the concept's own moves."""
        return optax.chain(
            optax.masked(adam(plan.lr_token), ROWS),
            optax.masked(adam(plan.lr_neurons, self.adam_epsilon), KERNELS),
            keep_row(plan.row_r),
        )

    def commit(self, memory: Memory, plan: Plan, trainable: Trainable) -> Memory:
        """Kernels and rows are the trained ones."""
        return Memory(trainable.kernels, trainable.rows_rd)
