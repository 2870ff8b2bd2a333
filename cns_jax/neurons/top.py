"""The highest scores of every output unit, exactly: counted by their bits on GPU and TPU, partitioned on a CPU.

Axes: i inputs, o output units, b prompts of one set, s sets of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.threads import in_threads
from cns_jax.core.tree import Tree
from cns_jax.core.xla.compiling import jit
from cns_jax.core.xla.platform import platform
from cns_jax.neurons.score import scores

_ROWS = 8  # sets of prompts are padded to a multiple, so that concepts of three and of five share a program


def kept(inputs: int, ratio: float) -> int:
    """floor(ratio * inputs): how many inputs every output unit keeps. Raises ValueError if that is none."""
    number = int(ratio * inputs + 1e-9)  # 0.29 * 100 is 28.999... in binary
    if number < 1:
        raise ValueError(f"ratio={ratio} of {inputs} inputs keeps none; raise it to at least {1 / inputs:.4g}")
    return number


def top_of_all(kernels: Mapping[str, Any], norms_sbi: Sequence[jax.Array], ratio: float) -> list[Tree]:
    """A boolean tree a set of feature norms (b, i): True where every prompt of the set has its top inputs.

    On a CPU NumPy's partition takes a third of the time, and nothing is compiled.
    """
    if platform() == "cpu":
        arrays, tree = jax.tree.flatten(kernels)
        find = partial(_partitioned, norms_sbi=[np.asarray(norms) for norms in norms_sbi], ratio=ratio)
        found = in_threads(find, map(np.asarray, arrays))
        return [jax.tree.unflatten(tree, map(jax.device_put, masks)) for masks in zip(*found, strict=True)]
    counts = [norms.shape[0] for norms in norms_sbi]
    rows = max(counts) + -max(counts) % _ROWS
    padded = np.stack([np.pad(np.asarray(norms), ((0, rows - norms.shape[0]), (0, 0))) for norms in norms_sbi])
    return _counted(dict(kernels), jax.device_put(padded), jax.device_put(np.asarray(counts)), ratio)


def _partitioned(kernel_io: np.ndarray, norms_sbi: Sequence[np.ndarray], ratio: float) -> list[np.ndarray]:
    """A mask (i, o) a set."""
    size_oi = np.ascontiguousarray(np.abs(kernel_io.astype(np.float32, copy=False)).T)
    keep = kept(size_oi.shape[1], ratio)
    out = []
    for norms_bi in norms_sbi:
        mask_oi = np.ones(size_oi.shape, bool)
        for norms_i in norms_bi:
            mask_oi &= _highest(size_oi * norms_i, keep)
        out.append(np.ascontiguousarray(mask_oi.T))
    return out


def _highest(scores_oi: np.ndarray, keep: int) -> np.ndarray:
    """True at the `keep` highest scores of every row, ties to the lower index."""
    first = scores_oi.shape[1] - keep
    lowest_o1 = np.partition(scores_oi, first, axis=1)[:, first : first + 1]
    chosen_oi = scores_oi >= lowest_o1
    if np.count_nonzero(chosen_oi) > keep * len(scores_oi):
        above_oi, tied_oi = scores_oi > lowest_o1, scores_oi == lowest_o1
        room_o1 = keep - above_oi.sum(axis=1, keepdims=True)
        chosen_oi = above_oi | (tied_oi & (np.cumsum(tied_oi, axis=1) <= room_o1))
    return chosen_oi


@jit(static_argnames="ratio")
def _counted(kernels: dict[str, Any], norms_sbi: jax.Array, counts_s: jax.Array, ratio: float) -> list[Tree]:
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
