"""From scores to neuron masks: exact top inputs per output unit, and the algebra of masks (eq. 4 to 6).

A NeuronMask is a nested dict of boolean arrays with the structure and shapes of the trainable kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.compiling import jit
from cns_jax.core.tree import Tree, flatten, like, map_named
from cns_jax.neurons.score import scores

NeuronMask = Tree

_ROWS = 8  # captions are padded to a multiple, so that concepts of three and of five share a program


def kept(inputs: int, ratio: float) -> int:
    """floor(ratio * inputs): how many inputs every output unit keeps. Raises ValueError if that is none."""
    number = int(ratio * inputs + 1e-9)  # 0.29 * 100 is 28.999... in binary
    if number < 1:
        raise ValueError(f"ratio={ratio} of {inputs} inputs keeps none; raise it to at least {1 / inputs:.4g}")
    return number


def top_inputs(scores_io: jax.Array, ratio: float) -> jax.Array:
    """True at the floor(ratio * in) highest scores of every output unit, ties to the lower input index.

    scores_io: (in, out), not negative. Returns bool (in, out). Raises ValueError if the ratio keeps none.
    """
    keep = kept(scores_io.shape[0], ratio)
    # The bits of a non-negative float order as the float does, so 31 counts find the keep-th highest score of
    # every output unit: 11 times faster on a CPU than ranking by two sorts.
    bits_io = jax.lax.bitcast_convert_type(scores_io.astype(jnp.float32), jnp.int32)

    def set_bit(i: jax.Array, lowest_o: jax.Array) -> jax.Array:
        trial_o = lowest_o | (jnp.int32(1) << (30 - i))
        return jnp.where((bits_io >= trial_o[None]).sum(axis=0) >= keep, trial_o, lowest_o)

    lowest_o = jax.lax.fori_loop(0, 31, set_bit, jnp.zeros(bits_io.shape[1], jnp.int32))
    above_io, tied_io = bits_io > lowest_o[None], bits_io == lowest_o[None]
    room_o = keep - above_io.sum(axis=0)
    return above_io | (tied_io & (jnp.cumsum(tied_io, axis=0) <= room_o[None]))


def selected(kernels: Mapping[str, Any], norms_bi: jax.Array, ratio: float) -> NeuronMask:
    """The weights that every caption selects: AND over captions b of the top inputs (eq. 4, eq. 5)."""
    return _selected(dict(kernels), *_padded(norms_bi), ratio)[0]


def _padded(*norms_bi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sets of norms as one array (s, b, i), rows of zeros behind the shorter ones, and how many rows each has (s)."""
    counts = [norms.shape[0] for norms in norms_bi]
    rows = max(counts) + -max(counts) % _ROWS
    padded = [np.pad(np.asarray(norms), ((0, rows - norms.shape[0]), (0, 0))) for norms in norms_bi]
    return jnp.asarray(np.stack(padded)), jnp.asarray(counts)


@jit(static_argnames="ratio")
def _selected(kernels: dict[str, Any], norms_sbi: jax.Array, counts_s: jax.Array, ratio: float) -> list[NeuronMask]:
    """A mask a set of norms, of its first counts_s rows; the sets share a loop, whose program is compiled once."""

    def every(kernel_io: jax.Array) -> jax.Array:
        def of_set(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
            norms_bi, count = rows

            def also(b: jax.Array, mask_io: jax.Array) -> jax.Array:
                return mask_io & top_inputs(scores(kernel_io, norms_bi[b]), ratio)

            return jax.lax.fori_loop(0, count, also, jnp.ones(kernel_io.shape, bool))

        return jax.lax.map(of_set, (norms_sbi, counts_s))

    masks = jax.tree.map(every, kernels)
    return [jax.tree.map(lambda mask_sio: mask_sio[s], masks) for s in range(len(counts_s))]  # noqa: B023


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
    base, general = _selected(dict(kernels), *_padded(caption_norms_bi, calibration_norms_ki), ratio)
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
