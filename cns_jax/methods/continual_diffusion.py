"""Continual Diffusion, C-LoRA (Smith et al., TMLR 2024, arXiv:2304.06027): low-rank changes of the cross-attention K/V
weights, one after the other, each kept away from where earlier ones changed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cns_jax.core.rng import stream
from cns_jax.core.settings import require
from cns_jax.core.tree import flatten, like
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Logs, Method, Step, Task
from cns_jax.methods.parts import adam, check_numbers, check_row, keep_row, no_rows, one_hot, with_row
from cns_jax.neurons.score import cross_attention_kernels


class Memory(NamedTuple):
    """What outlives a concept. change: the sum of all lessons' products, float32, nested as the K/V kernels; rows_rd:
    all concept rows."""

    change: Any
    rows_rd: jax.Array


class Factors(NamedTuple):
    """What learns: dotted name of a kernel (in, out) -> down (in, rank) and up (rank, out), and the concept rows."""

    down: dict[str, jax.Array]
    up: dict[str, jax.Array]
    rows_rd: jax.Array


class Plan(NamedTuple):
    """What is fixed during a concept; arrays only. change: of the lessons before; row_r: one-hot bool of its row."""

    change: Any
    row_r: jax.Array
    lr_lora: jax.Array
    lr_token: jax.Array
    forget: jax.Array


@dataclass(frozen=True)
class ContinualDiffusion(Method):
    """Hyperparameters. W_t = W_0 + the sum of earlier products + A_t B_t; the loss adds forget times the sum over
    layers of the squares of |sum of earlier products| * (A_t B_t), entry by entry. What is kept is that sum, of the
    size of the K/V weights however many lessons there were, and a row a concept.

    Rates are those of the comparison in CNS's paper, 700 steps; the paper gives no number for `forget`, which it swept.
    A starts at zero and B as LoRA's (uniform within 1 / sqrt(in)); a token's row is drawn with the spread of the token
    table. In prompts the token stands alone, without a class word, and there are no prior images.

    name: of the method. rank: of a lesson's product. forget: the weight of the penalty. lr_lora, lr_token: learning
    rates of the factors and of the token's row.

    Raises SettingsError, naming the field, for a value out of range.
    """

    name: Literal["continual_diffusion"] = "continual_diffusion"
    rank: int = 16
    forget: float = 1e8
    lr_lora: float = 5e-4
    lr_token: float = 5e-4

    class_noun: ClassVar[bool] = False
    title: ClassVar[str] = "Continual Diffusion (C-LoRA)"
    learns: ClassVar[str] = "a low-rank change of the cross-attention K/V weights"

    def __post_init__(self) -> None:
        require(self.rank > 0, f"method.rank={self.rank} must be positive")
        check_numbers(self, ("forget", "lr_lora", "lr_token"))

    def empty(self, base: Mapping[str, Any], rows: int, width: int) -> Memory:
        """No change, zero rows (rows, width)."""
        kernels = cross_attention_kernels(base["unet"])
        return Memory(jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), kernels), no_rows(rows, width))

    def begin(
        self, key: jax.Array, base: Mapping[str, Any], memory: Memory, task: Task
    ) -> tuple[Factors, Plan, dict[str, float]]:
        """New factors and a random row; raises ValueError if the task's row is not a reserved one."""
        check_row(memory.rows_rd, task.row)
        table_vd = base["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
        trainable, plan = self._start(memory, jax.device_put(np.int32(task.row)), key, table_vd)
        weights = sum(leaf.size for leaf in jax.tree.leaves((trainable.down, trainable.up)))
        return trainable, plan, {"low_rank": float(weights), "rank": float(self.rank)}

    def told(self, statistics: Mapping[str, float]) -> str:
        """How many numbers learn."""
        return f"{statistics['low_rank']:.0f} numbers of rank {statistics['rank']:.0f} learn"

    def shapes(self, base: Mapping[str, Any], memory: Memory) -> tuple[Factors, Plan]:
        """Of what `begin` returns; base and memory may be shapes too."""
        table = base["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
        key = jax.eval_shape(jax.random.key, 0)
        return jax.eval_shape(self._start, memory, jax.ShapeDtypeStruct((), jnp.int32), key, table)

    def _start(self, memory: Memory, row: jax.Array, key: jax.Array, table_vd: jax.Array) -> tuple[Factors, Plan]:
        trainable, row_r = _beginning(memory, row, key, table_vd, rank=self.rank)
        values = (jax.device_put(np.float32(value)) for value in (self.lr_lora, self.lr_token, self.forget))
        return trainable, Plan(memory.change, row_r, *values)

    def applied(self, base: Mapping[str, Any], plan: Plan, trainable: Factors) -> Applied:
        """The UNet with all changes, today's among them."""
        return self.sampled(base, self.commit(None, plan, trainable))

    def loss(self, step: Step, trainable: Factors) -> tuple[jax.Array, Logs]:
        """The denoising loss and the penalty."""
        value, logs = super().loss(step, trainable)
        return value + self.penalty(step.plan, trainable), logs

    def penalty(self, plan: Plan, trainable: Factors) -> jax.Array:
        """forget * sum over layers of || |sum of earlier products| * (A_t B_t) ||_F^2."""
        change = flatten(plan.change)
        each = (jnp.square(jnp.abs(change[name]) * new).sum() for name, new in _products(trainable).items())
        return plan.forget * sum(each, jnp.zeros(()))

    def optimizer(self, plan: Plan) -> optax.GradientTransformation:
        """Adam for rows and for factors; of the rows only the concept's own moves."""
        return optax.chain(
            optax.masked(adam(plan.lr_token), Factors(False, False, True)),  # type: ignore[arg-type]
            optax.masked(adam(plan.lr_lora), Factors(True, True, False)),  # type: ignore[arg-type]
            keep_row(plan.row_r),
        )

    def commit(self, memory: Memory | None, plan: Plan, trainable: Factors) -> Memory:
        """The products are added."""
        products = _products(trainable)
        change = {name: old + products[name] for name, old in flatten(plan.change).items()}
        return Memory(like(change, plan.change), trainable.rows_rd)

    def sampled(self, base: Mapping[str, Any], memory: Memory) -> Applied:
        """Free: the changes are added to the base model's kernels."""
        kernels = cross_attention_kernels(base["unet"])
        changed = jax.tree.map(lambda w, change: w.astype(jnp.float32) + change, kernels, memory.change)
        return Applied(base, memory.rows_rd).with_unet(changed)


def _products(factors: Factors) -> dict[str, jax.Array]:
    return {name: down @ factors.up[name] for name, down in factors.down.items()}


@partial(jax.jit, static_argnames="rank")
def _beginning(
    memory: Memory, row: jax.Array, key: jax.Array, table_vd: jax.Array, *, rank: int
) -> tuple[Factors, jax.Array]:
    row_r = one_hot(memory.rows_rd, row)
    spread = table_vd.astype(jnp.float32).std()
    random_d = spread * jax.random.normal(stream(key, "row"), memory.rows_rd.shape[1:])
    shapes = {name: leaf.shape for name, leaf in flatten(memory.change).items()}
    bound = {name: (before**-0.5) for name, (before, _) in shapes.items()}
    down = {
        name: jax.random.uniform(
            stream(key, "down", i), (shapes[name][0], rank), minval=-bound[name], maxval=bound[name]
        )
        for i, name in enumerate(shapes)
    }
    up = {name: jnp.zeros((rank, after)) for name, (_, after) in shapes.items()}
    return Factors(down, up, with_row(memory.rows_rd, row_r, random_d)), row_r
