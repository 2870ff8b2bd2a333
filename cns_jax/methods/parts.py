"""Parts that methods share: what they remember, how a lesson starts, and their optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cns_jax.core.settings import require
from cns_jax.core.types import Trainable
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Method
from cns_jax.neurons.score import cross_attention_kernels


class Memory(NamedTuple):
    """What outlives a concept. kernels: W_{m-1}, float32; rows_rd: all concept rows."""

    kernels: Any
    rows_rd: jax.Array


class OnKernels(Method):
    """What methods have in common whose model is the cross-attention kernels and rows that they remember."""

    def empty(self, base: Mapping[str, Any], rows: int, width: int) -> Any:
        """W_0 in float32, zero rows (rows, width)."""
        return Memory(kernels_of(base), no_rows(rows, width))

    def applied(self, base: Mapping[str, Any], plan: Any, trainable: Trainable) -> Applied:
        """The UNet with the trainable kernels in place of its own."""
        return Applied(base, trainable.rows_rd).with_unet(trainable.kernels)

    def sampled(self, base: Mapping[str, Any], memory: Any) -> Applied:
        """Free: the memory's kernels are the model."""
        return Applied(base, memory.rows_rd).with_unet(memory.kernels)


def kernels_of(base: Mapping[str, Any]) -> Any:
    """The cross-attention K/V kernels W_0 in float32."""
    return jax.tree.map(lambda w: w.astype(jnp.float32), cross_attention_kernels(base["unet"]))


def no_rows(rows: int, width: int) -> jax.Array:
    """Concept rows before any concept: zeros float32 (rows, width)."""
    return jax.device_put(np.zeros((rows, width), np.float32))  # jnp.zeros would be a program of its own


def check_numbers(method: Any, names: Sequence[str]) -> None:
    """Raises SettingsError for a field of `names` that is negative or not finite, or an adam_epsilon that is not
    positive."""
    for name in names:
        value = getattr(method, name)
        require(0 <= value < float("inf"), f"method.{name}={value} must be finite and not negative")
    epsilon = getattr(method, "adam_epsilon", 1.0)
    require(0 < epsilon < float("inf"), f"method.adam_epsilon={epsilon} must be positive and finite")


def check_row(rows_rd: jax.Array, row: int) -> None:
    """Raises ValueError if a token row is not a reserved one."""
    reserved = rows_rd.shape[0]
    if not 0 <= row < reserved:
        raise ValueError(f"token row {row} does not exist: {reserved} are reserved; raise reserved_rows")


@jax.jit  # one program: a start compiles many small ones beside the step's
def beginning(kernels: Any, rows_rd: jax.Array, row: jax.Array, init_row_d: jax.Array) -> tuple[Trainable, jax.Array]:
    """What trains: copies of the kernels and rows, with init_row_d in its row; and a one-hot bool of the row."""
    row_r = one_hot(rows_rd, row)
    return Trainable(jax.tree.map(jnp.copy, kernels), with_row(rows_rd, row_r, init_row_d)), row_r


def one_hot(rows_rd: jax.Array, row: jax.Array) -> jax.Array:
    """Which of the rows is `row`, bool (r,)."""
    return jnp.arange(rows_rd.shape[0]) == row


def with_row(rows_rd: jax.Array, row_r: jax.Array, value_d: jax.Array) -> jax.Array:
    """rows_rd with value_d where row_r is true."""
    return jnp.where(row_r[:, None], value_d[None], rows_rd)


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
