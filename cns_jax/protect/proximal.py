"""A proximal step after each update of a lesson: it draws protected keys and values back to what they were.

What a lesson may cost the protected prompts is the quadratic E(W) = 1/2 sum_g w_g ||X_g (W - W_g)||^2 / n_g =
1/2 tr(W^T C W) - tr(W^T B) + const. After the optimizer's update U, the kernel becomes

    argmin_V 1/2 ||V - (W + U)||^2 + strength E(V) = (1 + strength C)^-1 (W + U + strength B),

an exact solution, so that no strength makes the lesson stiff, and Adam, which divides gradients by their size, never
sees it: as decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101), towards other weights than 0 and in the
metric of the protected features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.tree import flatten, like
from cns_jax.protect.moments import Protected


class Pull(NamedTuple):
    """What a step needs of it; float32, a pytree of fixed shapes.

    With the k leading eigenvectors of C as basis B (d, k) and s = strength e / (1 + strength e) of their eigenvalues e,
    0 (free) to 1 (held): basis_dk: B; shrink_kd: diag(s) B^T; toward: nested as the kernels, what shrink_kd makes of
    the kernels held to (k, out). Where k is more than half of d, one product costs less than two: then basis_dk is None
    and the others have it in them, (d, d) and (d, out).
    """

    basis_dk: jax.Array | None
    shrink_kd: jax.Array
    toward: Any


def pull_of(protected: Protected, strength: float, directions: int, kernels: Any) -> Pull:
    """strength: of the pull, of a direction with an eigenvalue of 1; directions: k, at most d; kernels: nested, for
    the structure."""
    values_d, vectors_dd = np.linalg.eigh(protected.moment_dd)
    keep = slice(-1, -min(directions, len(values_d)) - 1, -1)
    values_k, basis_dk = np.maximum(values_d[keep], 0), vectors_dd[:, keep]
    scaled_kd = (strength / (1 + strength * values_k))[:, None] * basis_dk.T
    shrink_kd = values_k[:, None] * scaled_kd
    if _at_once(len(values_k), len(values_d)):
        toward = {name: _f32(basis_dk @ (scaled_kd @ b)) for name, b in protected.outputs.items()}
        return Pull(None, _f32(basis_dk @ shrink_kd), like(toward, kernels))
    toward = {name: _f32(scaled_kd @ b) for name, b in protected.outputs.items()}
    return Pull(_f32(basis_dk), _f32(shrink_kd), like(toward, kernels))


def _at_once(directions: int, width: int) -> bool:
    return 2 * directions > width


def pulled(pull: Pull, updates: Any, kernels: Any) -> Any:
    """The updates with the proximal step in them: `kernels` + what is returned solves the problem above.

    updates, kernels: trees of (d, out), float32.
    """

    def one(u: jax.Array, w: jax.Array, toward_ko: jax.Array) -> jax.Array:
        # what is pulled is a small difference of large numbers: TF32 or bfloat16 would pull to a kernel 0.1 % off
        away = jnp.matmul(pull.shrink_kd, w + u, precision=jax.lax.Precision.HIGHEST) - toward_ko
        if pull.basis_dk is not None:
            away = jnp.matmul(pull.basis_dk, away, precision=jax.lax.Precision.HIGHEST)
        return u - away

    return jax.tree.map(one, updates, kernels, pull.toward)


def pull_shapes(kernels: Any, directions: int) -> Pull:
    """Of what `pull_of` returns; kernels may be shapes."""
    width = next(iter(flatten(kernels).values())).shape[0]
    at_once = _at_once(min(directions, width), width)
    count = width if at_once else min(directions, width)

    def shape(*sides: int) -> Any:
        return jax.ShapeDtypeStruct(sides, jnp.float32)

    toward = jax.tree.map(lambda w: shape(count, w.shape[1]), kernels)
    return Pull(None if at_once else shape(width, count), shape(count, width), toward)


def held_share(protected: Protected, directions: int) -> float:
    """How much of the protected features' energy lies in the leading `directions` directions, 0 to 1."""
    values_d = np.maximum(np.linalg.eigvalsh(protected.moment_dd), 0)
    return float(values_d[-min(directions, len(values_d)) :].sum() / max(values_d.sum(), np.finfo(float).tiny))


def _f32(array: np.ndarray) -> jax.Array:
    return jnp.asarray(array, jnp.float32)
