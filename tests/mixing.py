"""A method whose model depends on the prompt: low-rank changes of which a prompt takes those of its own concepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cns_jax.core.rng import stream
from cns_jax.core.tree import flatten
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Method, Task
from cns_jax.methods.parts import adam, keep_row, no_rows, one_hot, with_row
from cns_jax.neurons.score import cross_attention_kernels

RANK = 2


class Sets(NamedTuple):
    """A set a row: dotted name of a layer -> down (r, in, RANK), up (r, RANK, out); and the rows. Both memory and what
    learns."""

    down: dict[str, jax.Array]
    up: dict[str, jax.Array]
    rows_rd: jax.Array


class Plan(NamedTuple):
    row_r: jax.Array
    rate: jax.Array


@dataclass(frozen=True)
class Mixing(Method):
    """name: of the method. lr_lora: learning rate of all that learns."""

    name: Literal["mixing"] = "mixing"
    lr_lora: float = 1e-2

    title: ClassVar[str] = "Mixing"
    learns: ClassVar[str] = "a low-rank change a concept"

    def empty(self, base: Mapping[str, Any], rows: int, width: int) -> Sets:
        shapes = {
            name.removesuffix(".kernel"): w.shape for name, w in flatten(cross_attention_kernels(base["unet"])).items()
        }
        down = {name: jnp.zeros((rows, before, RANK)) for name, (before, _) in shapes.items()}
        up = {name: jnp.zeros((rows, RANK, after)) for name, (_, after) in shapes.items()}
        return Sets(down, up, no_rows(rows, width))

    def begin(self, key: jax.Array, base: Mapping[str, Any], memory: Sets, task: Task) -> tuple[Sets, Plan, dict]:
        row_r = one_hot(memory.rows_rd, jnp.asarray(task.row))
        down = {
            name: jnp.where(row_r[:, None, None], jax.random.normal(stream(key, "down", i), old.shape[1:])[None], old)
            for i, (name, old) in enumerate(memory.down.items())
        }
        up = jax.tree.map(jnp.copy, memory.up)
        rows_rd = with_row(memory.rows_rd, row_r, task.init_row_d)
        return Sets(down, up, rows_rd), Plan(row_r, jnp.float32(self.lr_lora)), {"sets": 1.0}

    def told(self, statistics: Mapping[str, float]) -> str:
        return "one set learns"

    def shapes(self, base: Mapping[str, Any], memory: Sets) -> tuple[Sets, Plan]:
        def start(memory: Sets) -> tuple[Sets, Plan]:
            return memory, Plan(one_hot(memory.rows_rd, jnp.int32(0)), jnp.float32(0))

        return jax.eval_shape(start, memory)

    def applied(self, base: Mapping[str, Any], plan: Plan, trainable: Sets) -> Applied:
        return self.sampled(base, trainable)

    def optimizer(self, plan: Plan) -> optax.GradientTransformation:
        def keep(updates: Sets, state: Any, params: Any = None) -> tuple[Sets, Any]:
            own = lambda u: jnp.where(plan.row_r[:, None, None], u, 0)  # noqa: E731
            return updates._replace(down=jax.tree.map(own, updates.down), up=jax.tree.map(own, updates.up)), state

        one_set = optax.GradientTransformation(lambda _: optax.EmptyState(), keep)
        return optax.chain(adam(plan.rate), one_set, keep_row(plan.row_r))

    def commit(self, memory: Sets, plan: Plan, trainable: Sets) -> Sets:
        return trainable

    def sampled(self, base: Mapping[str, Any], memory: Sets) -> Applied:
        table_vd = (
            base["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
            if ("text_encoder" in base)
            else jnp.zeros((0, 1))
        )
        low_rank = {name: (down, memory.up[name]) for name, down in memory.down.items()}
        first = jnp.int32(table_vd.shape[0])
        return Applied(base, memory.rows_rd, low_rank, (first, memory.rows_rd), of_the_concepts)


def of_the_concepts(facts: Any, ids_bl: jax.Array) -> jax.Array:
    """Equal shares (b, l, r) of the sets of the concepts whose tokens are in the prompt."""
    first, rows_rd = facts
    asked_br = (ids_bl[:, :, None] == (first + jnp.arange(len(rows_rd)))[None, None]).any(1).astype(jnp.float32)
    shares_br = asked_br / jnp.maximum(asked_br.sum(-1, keepdims=True), 1)
    return jnp.repeat(shares_br[:, None], ids_bl.shape[1], axis=1)
