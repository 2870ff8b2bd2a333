"""optax transforms of CNS: the continual regularizer L_reg (eq. 7) and masks over single weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

Kernels = Any


def regularization_loss(
    kernels: Kernels, previous: Kernels, base: Kernels, m_reg: Kernels, lambda1: jax.Array, lambda2: jax.Array
) -> jax.Array:
    """L_reg = lambda1 ||(W - W_{m-1}) M||^2 + lambda2 ||(W - W_0) M||^2, summed over the weights of M (eq. 7).

    Squared, since the plain norm has no derivative at W = W_{m-1}, where every concept starts.
    """

    def one(w: jax.Array, w1: jax.Array, w0: jax.Array, m: jax.Array) -> jax.Array:
        return jnp.where(m, lambda1 * jnp.square(w - w1) + lambda2 * jnp.square(w - w0), 0.0).sum()

    return sum(jax.tree.leaves(jax.tree.map(one, kernels, previous, base, m_reg)), jnp.zeros(()))


def continual_regularization(
    previous: Kernels, base: Kernels, m_reg: Kernels, lambda1: jax.Array, lambda2: jax.Array
) -> optax.GradientTransformation:
    """Adds the analytic gradient of L_reg to the incoming gradient; needs the parameters in `update`.

    previous, base: W_{m-1} and W_0; m_reg: concept mask AND the union of earlier masks. All may be traced.
    """

    def add(g: jax.Array, w: jax.Array, w1: jax.Array, w0: jax.Array, m: jax.Array) -> jax.Array:
        return g + jnp.where(m, 2.0 * lambda1 * (w - w1) + 2.0 * lambda2 * (w - w0), 0.0)

    def update(gradients: Kernels, state: optax.EmptyState, params: Kernels | None = None) -> tuple[Kernels, Any]:
        if params is None:
            raise ValueError("continual_regularization needs params in update(gradients, state, params)")
        return jax.tree.map(add, gradients, params, previous, base, m_reg), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def keep_selected(mask: Any) -> optax.GradientTransformation:
    """Zero every update outside `mask`. Last in a chain: before Adam, stale moments would still move weights.

    `where`, not a product: 0 * NaN is NaN, unless a compiler happens to rewrite it (XLA on CPU does).
    """

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda u, m: jnp.where(m, u, jnp.zeros_like(u)), updates, mask), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)
