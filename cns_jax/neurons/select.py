"""From scores to neuron masks: exact top inputs per output unit, and the algebra of masks (eq. 4 to 6).

A NeuronMask is a nested dict of boolean arrays with the structure and shapes of the trainable kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.tree import Tree, flatten, like, map_named
from cns_jax.neurons.score import scores

NeuronMask = Tree


def top_inputs(scores_io: jax.Array, ratio: float) -> jax.Array:
    """True at the floor(ratio * in) highest scores of every output unit, ties to the lower input index.

    scores_io: (in, out), not negative. Returns bool (in, out).
    """
    keep = int(ratio * scores_io.shape[0] + 1e-9)
    order_io = jnp.argsort(-scores_io, axis=0, stable=True)
    rank_io = jnp.argsort(order_io, axis=0, stable=True)
    return rank_io < keep


def selected(kernels: Mapping[str, Any], norms_bi: jax.Array, ratio: float) -> NeuronMask:
    """The weights that every caption selects: AND over captions b of the top inputs (eq. 4, eq. 5)."""

    def every(kernel_io: jax.Array) -> jax.Array:
        def also(mask_io: jax.Array, norms_i: jax.Array) -> tuple[jax.Array, None]:
            return mask_io & top_inputs(scores(kernel_io, norms_i), ratio), None

        return jax.lax.scan(also, jnp.ones(kernel_io.shape, bool), norms_bi)[0]

    return jax.tree.map(every, dict(kernels))


class Selection(NamedTuple):
    """base: selected by all captions of the concept; general: by all calibration prompts; concept: the first
    without the second (eq. 6)."""

    base: NeuronMask
    general: NeuronMask
    concept: NeuronMask


def concept_neurons(
    kernels: Mapping[str, Any], caption_norms_bi: jax.Array, calibration_norms_ki: jax.Array, ratio: float
) -> Selection:
    """Select a concept's neurons (eq. 4 to 6). norms: feature norms of its captions and of K prompts."""
    choose = jax.jit(selected, static_argnames="ratio")
    base = choose(kernels, caption_norms_bi, ratio=ratio)
    general = choose(kernels, calibration_norms_ki, ratio=ratio)
    return Selection(base, general, minus(base, general))


def union(a: NeuronMask, b: NeuronMask) -> NeuronMask:
    """Weights in either mask."""
    return jax.tree.map(jnp.logical_or, a, b)


def intersect(a: NeuronMask, b: NeuronMask) -> NeuronMask:
    """Weights in both masks."""
    return jax.tree.map(jnp.logical_and, a, b)


def minus(a: NeuronMask, b: NeuronMask) -> NeuronMask:
    """Weights of a that are not in b."""
    return jax.tree.map(lambda x, y: x & ~y, a, b)


def constant(kernels: Mapping[str, Any], value: bool) -> NeuronMask:
    """A mask that is `value` everywhere."""
    return jax.tree.map(lambda kernel: jnp.full(kernel.shape, value), dict(kernels))


def random_like(key: jax.Array, mask: NeuronMask) -> NeuronMask:
    """A mask with as many True per output unit as `mask`, at random inputs: the paper's ablation."""

    def one(name: str, leaf: jax.Array) -> jax.Array:
        noise = jax.random.uniform(keys[name], leaf.shape)
        rank = jnp.argsort(jnp.argsort(noise, axis=0), axis=0)
        return rank < leaf.sum(axis=0, keepdims=True)

    names = list(flatten(mask))
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    return map_named(one, mask)


def expand(mask: NeuronMask, params: Mapping[str, Any]) -> Tree:
    """A boolean tree with the structure of the full parameters, False wherever nothing is trained."""
    chosen = flatten(mask)
    return like({n: chosen.get(n, np.zeros(leaf.shape, bool)) for n, leaf in flatten(params).items()}, params)


def count(mask: NeuronMask) -> int:
    """Number of selected weights."""
    return sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(mask))
