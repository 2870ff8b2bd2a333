"""Parts that methods share: what they remember, how a lesson starts, and their optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cns_jax.core.types import Trainable
from cns_jax.neurons import select
from cns_jax.neurons.score import cross_attention_kernels


class Memory(NamedTuple):
    """What outlives a concept. union: OR of all concept masks; kernels: W_{m-1}; rows_rd: all concept rows."""

    union: Any
    kernels: Any
    rows_rd: jax.Array


def empty_memory(base: Mapping[str, Any], rows: int, width: int) -> Memory:
    """No mask, W_0 in float32, zero rows (rows, width)."""
    kernels = jax.tree.map(lambda w: w.astype(jnp.float32), cross_attention_kernels(base["unet"]))
    no_rows_rd = jax.device_put(np.zeros((rows, width), np.float32))  # jnp.zeros would be a program of its own
    return Memory(select.constant(kernels, False), kernels, no_rows_rd)


def check_row(memory: Memory, row: int) -> None:
    """Raises ValueError if a token row is not a reserved one."""
    reserved = memory.rows_rd.shape[0]
    if not 0 <= row < reserved:
        raise ValueError(f"token row {row} does not exist: {reserved} are reserved; raise reserved_rows")


@jax.jit  # one program: a start compiles thirty small ones beside the step's
def beginning(
    kernels: Any, memory: Memory, mask: Any, row: jax.Array, init_row_d: jax.Array
) -> tuple[Trainable, Any, Any, jax.Array]:
    """What trains, copied, with init_row_d in its row; m_reg; W_0 in float32; one-hot bool of the row."""
    row_r = jnp.arange(memory.rows_rd.shape[0]) == row
    rows_rd = jnp.where(row_r[:, None], init_row_d[None], memory.rows_rd)
    w_base = jax.tree.map(lambda w: w.astype(jnp.float32), kernels)
    trainable = Trainable(jax.tree.map(jnp.copy, memory.kernels), rows_rd)
    return trainable, select.intersect(mask, memory.union), w_base, row_r


def adam(learning_rate: jax.Array, epsilon: float = 1e-8) -> optax.GradientTransformation:
    """Adam whose learning rate may be traced."""
    return optax.chain(optax.scale_by_adam(eps=epsilon), optax.scale(-learning_rate))  # type: ignore[arg-type]


def on_kernels(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """`transform` over the kernels of a Trainable; token rows pass through."""

    def update(updates: Trainable, state: Any, params: Trainable | None = None) -> tuple[Trainable, Any]:
        kernels = None if params is None else params.kernels
        changed, state = transform.update(updates.kernels, state, kernels)
        return updates._replace(kernels=changed), state

    return optax.GradientTransformation(lambda params: transform.init(params.kernels), update)


def keep_row(row_r: jax.Array) -> optax.GradientTransformation:
    """Zero the updates of all token rows but one. row_r: one-hot bool."""

    def update(updates: Trainable, state: Any, params: Any = None) -> tuple[Trainable, Any]:
        del params
        return updates._replace(rows_rd=jnp.where(row_r[:, None], updates.rows_rd, 0)), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


KERNELS, ROWS = Trainable(True, False), Trainable(False, True)  # type: ignore[arg-type]
"""Masks for `optax.masked`."""
