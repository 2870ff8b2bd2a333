"""From the top inputs of prompts to neuron masks, and the algebra of masks (eq. 4 to 6).

A NeuronMask is a nested dict of boolean arrays with the structure and shapes of the trainable kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.tree import Tree, flatten, like, map_named
from cns_jax.neurons.top import top_of_all

NeuronMask = Tree


def selected(kernels: Mapping[str, Any], norms_bi: jax.Array, ratio: float) -> NeuronMask:
    """The weights that every caption selects: AND over captions b of the top inputs (eq. 4, eq. 5)."""
    return top_of_all(dict(kernels), (norms_bi,), ratio)[0]


class Selection(NamedTuple):
    """base: selected by all captions of the concept; general: by all calibration prompts; concept: the first
    without the second (eq. 6)."""

    base: NeuronMask
    general: NeuronMask
    concept: NeuronMask


def concept_neurons(
    kernels: Mapping[str, Any], caption_norms_bi: jax.Array, calibration_norms_ki: jax.Array, ratio: float
) -> Selection:
    """Select a concept's neurons (eq. 4 to 6). norms: feature norms of its captions and of K prompts.

    Raises ValueError if there is no caption or no calibration prompt: an AND over none would select all.
    """
    for name, norms in (("captions", caption_norms_bi), ("calibration prompts", calibration_norms_ki)):
        if norms.shape[0] == 0:
            raise ValueError(f"no {name} to select neurons with; give at least one")
    base, general = top_of_all(dict(kernels), (caption_norms_bi, calibration_norms_ki), ratio)
    return Selection(base, general, minus(base, general))


@jax.jit
def union(a: NeuronMask, b: NeuronMask) -> NeuronMask:
    """Weights in either mask."""
    return jax.tree.map(jnp.logical_or, a, b)


@jax.jit
def intersect(a: NeuronMask, b: NeuronMask) -> NeuronMask:
    """Weights in both masks."""
    return jax.tree.map(jnp.logical_and, a, b)


@jax.jit
def minus(a: NeuronMask, b: NeuronMask) -> NeuronMask:
    """Weights of a that are not in b."""
    return jax.tree.map(lambda x, y: x & ~y, a, b)


def constant(kernels: Mapping[str, Any], value: bool) -> NeuronMask:
    """A mask that is `value` everywhere."""
    return jax.tree.map(lambda kernel: jax.device_put(np.full(kernel.shape, value)), dict(kernels))


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
