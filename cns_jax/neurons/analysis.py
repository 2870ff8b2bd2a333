"""The selections of many prompts as packed bits of one kernel, and the counts that all statistics are made of.

A hundred boolean masks of SD-1.5's 19 M weights would take 1.9 GB; of one kernel at a time, packed, they take 12 MB.
All counts are sums over kernels.

Axes: i input features, o output units, p prompts, n weights of a kernel, w words of 64 weights, r orders, c masks.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.neurons.score import scores
from cns_jax.neurons.top import top_inputs

_AT_ONCE = 16  # prompts a call: bounds the boolean masks to 16 of one kernel
_BLOCK = 4096  # words: a hundred prompts' bits of a block stay in a core's cache


def pack(masks_pn: np.ndarray) -> np.ndarray:
    """bool (p, n) to uint64 (p, w); the bits past n are 0."""
    bytes_pb = np.packbits(masks_pn, axis=1)
    return np.pad(bytes_pb, ((0, 0), (0, -bytes_pb.shape[1] % 8))).view(np.uint64)


def selections(kernel_io: np.ndarray, norms_pi: np.ndarray, ratio: float) -> np.ndarray:
    """What each prompt selects of a kernel (eq. 3 and the threshold under it), packed (p, w).

    norms_pi: feature norms of the prompts. Raises ValueError if the ratio keeps no input.
    """
    count, kernel, out = len(norms_pi), jnp.asarray(kernel_io), []
    # whole batches, so that one program serves all prompts
    padded = np.concatenate([norms_pi, np.repeat(norms_pi[-1:], -count % _AT_ONCE, axis=0)])
    for start in range(0, count, _AT_ONCE):
        masks = np.asarray(_select(kernel, padded[start : start + _AT_ONCE], ratio=ratio))
        out.append(pack(masks[: count - start].reshape(-1, kernel_io.size)))
    return np.concatenate(out)


@partial(jax.jit, static_argnames="ratio")
def _select(kernel_io: jax.Array, norms_pi: jax.Array, ratio: float) -> jax.Array:
    return jax.lax.map(lambda norms_i: top_inputs(scores(kernel_io, norms_i), ratio), norms_pi)


def ones(bits: np.ndarray) -> np.ndarray:
    """Selected weights: int64, without the last axis."""
    return np.bitwise_count(bits).sum(axis=-1, dtype=np.int64)


def all_of(bits_pw: np.ndarray) -> np.ndarray:
    """The weights that every prompt selects (w): AND, as in eq. 4 and 5.

    Raises ValueError if there is no prompt: an AND over none would select all.
    """
    if len(bits_pw) == 0:
        raise ValueError("no prompt to select neurons with; give at least one")
    return np.bitwise_and.reduce(bits_pw, axis=0)


def frequency(bits_pw: np.ndarray, weights: int) -> np.ndarray:
    """How many of the kernel's weights are selected by exactly 0, 1, ..., p prompts: int64 (p + 1)."""
    total = np.zeros(len(bits_pw) + 1, np.int64)
    for start in range(0, bits_pw.shape[1], _BLOCK):
        block_pb = np.ascontiguousarray(bits_pw[:, start : start + _BLOCK]).view(np.uint8)
        times_n = np.unpackbits(block_pb, axis=1).sum(axis=0, dtype=np.uint32)[: weights - 64 * start]
        total += np.bincount(times_n, minlength=len(total))
    return total


def expected_surviving(frequency_m: np.ndarray) -> np.ndarray:
    """How many weights 1, 2, ..., p prompts all select, the mean over all orders of the prompts: (p).

    A weight that m of the p prompts select is selected by k prompts drawn at random with probability
    C(m, k) / C(p, k).
    """
    prompts = len(frequency_m) - 1
    left_km = np.maximum(np.arange(prompts + 1)[None] - np.arange(prompts)[:, None], 0)
    chance_km = np.cumprod(left_km / (prompts - np.arange(prompts))[:, None], axis=0)
    return chance_km @ frequency_m


def surviving(bits_pw: np.ndarray, orders_rp: np.ndarray) -> np.ndarray:
    """How many weights the first 1, 2, ..., p prompts of every order all select: int64 (r, p), as in Fig. 3."""
    total = np.zeros(orders_rp.shape, np.int64)
    for start in range(0, bits_pw.shape[1], _BLOCK):
        block_pw = bits_pw[:, start : start + _BLOCK]
        for counts_p, order_p in zip(total, orders_rp, strict=True):
            counts_p += ones(np.bitwise_and.accumulate(block_pw[order_p], axis=0))
    return total


def intersections(bits_cw: np.ndarray) -> np.ndarray:
    """Weights that every pair of masks shares: int64 (c, c), each mask's own size on the diagonal."""
    return np.stack([ones(bits_cw & bits_w) for bits_w in bits_cw])


def pairwise_iou(intersections_cc: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair (c, c); 0 where both masks are empty."""
    sizes_c = np.diagonal(intersections_cc)
    unions_cc = sizes_c[:, None] + sizes_c[None] - intersections_cc
    return intersections_cc / np.maximum(unions_cc, 1)
