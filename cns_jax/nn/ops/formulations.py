"""The heavy operations, each in the formulation that is fast on the device at hand; all choices of that kind are here
and, for convolutions, in `convolutions`.

On GPU and TPU they are the library's, but for long attention and a GPU's GroupNorm. On a CPU, XLA copies a transposed
weight before it multiplies with it, and does not vectorize loops that look up a group's statistics for every channel;
what is done instead, and what it gave, stands with each function and in benchmarks/NOTES.md.

Axes: b batch, c channels, n rows, i/o inputs and outputs of a kernel, q/k positions, d width of a head.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cns_jax.core.mesh import knows_rows, of_own_rows
from cns_jax.core.xla.platform import cuda_capability, platform

_FEW = 16  # positions
_SMALL = 200_000  # weights of a kernel


def linear(x_ni: jax.Array, kernel_io: jax.Array) -> jax.Array:
    """x kernel, (n, o).

    On a CPU the gradient of fewer rows than outputs is (kernel gradient^T)^T: of 32 rows and a kernel of 11,520 x 1,280
    12 ms instead of 82, which went into a transposed copy of the kernel. Of a small kernel a loop keeps that copy, and
    the gradient takes two thirds of the time (192 rows, 144 x 1,152).
    """
    if platform() == "cpu" and x_ni.shape[0] < kernel_io.shape[1]:
        return _linear_traced(x_ni, kernel_io)
    return x_ni @ kernel_io


@jax.custom_vjp
def _linear_of_few(x_ni: jax.Array, kernel_io: jax.Array) -> jax.Array:
    return x_ni @ kernel_io


def _linear_forward(x_ni: jax.Array, kernel_io: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _linear_of_few(x_ni, kernel_io), (x_ni, kernel_io)


def _linear_backward(kept: tuple[jax.Array, jax.Array], gradient_no: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_ni, kernel_io = kept
    kernel = x_ni.T @ gradient_no
    if kernel_io.size <= _SMALL:
        return gradient_no @ hoisted(kernel_io.T), kernel
    return kernel_first(kernel_io, gradient_no).T, kernel


_linear_of_few.defvjp(_linear_forward, _linear_backward)
_linear_traced = jax.jit(_linear_of_few)


def hoisted(x: jax.Array) -> jax.Array:
    """x, computed once before a loop whose steps all compute the same: XLA does so by itself but for transposed copies,
    and for these behind a barrier."""
    return lax.optimization_barrier(x)


def kernel_first(kernel_io: jax.Array, gradient_no: jax.Array) -> jax.Array:
    """kernel gradient^T (i, n). Without the barrier XLA turns its transpose back into gradient kernel^T."""
    return lax.optimization_barrier(lax.dot_general(kernel_io, gradient_no, (((1,), (1,)), ((), ()))))


def group_norm(
    x_bnc: jax.Array,
    scale_c: jax.Array,
    bias_c: jax.Array,
    groups: int,
    epsilon: float,
    activated: bool = False,
    shift_bc: jax.Array | None = None,
) -> jax.Array:
    """Each group of channels over all positions n, shift added, to mean 0 and variance 1, then scaled and shifted, then
    SiLU if `activated`; in float32, of x in its own type.

    The variance is of the centred values. On a CPU sums and the way from groups to channels are small products: forward
    and gradient of 12 x 16 x 16 x 48 with the SiLU that follows take 0.24 ms instead of 1.0. On a GPU each is two
    kernels, of which XLA makes nine (see `gpu_norm`).
    """
    if cuda_capability() >= 8 and knows_rows(len(x_bnc)):
        from cns_jax.nn.ops.gpu_norm import group_norm_kernel  # on a GPU alone

        normalize = partial(group_norm_kernel, groups=groups, epsilon=epsilon, activated=activated)
        own = of_own_rows(lambda x, *shift: normalize(x, shift[0] if shift else None, scale_c, bias_c))
        return own(x_bnc) if shift_bc is None else own(x_bnc, shift_bc)
    if shift_bc is not None:
        x_bnc = x_bnc + shift_bc[:, None]
    x_bnc, scale_c, bias_c = (x.astype(jnp.float32) for x in (x_bnc, scale_c, bias_c))
    if platform() == "cpu":
        out = _norm_traced(x_bnc, scale_c, bias_c, groups, epsilon)
    else:
        out = _norm_of_means(x_bnc, scale_c, bias_c, groups, epsilon)
    return silu(out) if activated else out


def _norm_of_means(x_bnc: jax.Array, scale_c: jax.Array, bias_c: jax.Array, groups: int, epsilon: float) -> jax.Array:
    b, _, c = x_bnc.shape

    def per_group(stat_bc: jax.Array) -> jax.Array:
        mean = stat_bc.reshape(b, groups, c // groups).mean(-1, keepdims=True)
        return jnp.broadcast_to(mean, (b, groups, c // groups)).reshape(b, 1, c)

    centred = x_bnc - per_group(x_bnc.mean(1))
    gain = lax.rsqrt(per_group(jnp.square(centred).mean(1)) + epsilon) * scale_c[None, None]
    return centred * gain + bias_c[None, None]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _group_norm_of_products(
    x_bnc: jax.Array, scale_c: jax.Array, bias_c: jax.Array, groups: int, epsilon: float
) -> jax.Array:
    return _norm_forward(x_bnc, scale_c, bias_c, groups, epsilon)[0]


def _norm_forward(
    x_bnc: jax.Array, scale_c: jax.Array, bias_c: jax.Array, groups: int, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean_b1c = _over_groups(_position_mean(x_bnc), groups)
    centred = x_bnc - mean_b1c
    inverse_b1c = lax.rsqrt(_over_groups(_position_mean(jnp.square(centred)), groups) + epsilon)
    return centred * (inverse_b1c * scale_c[None, None]) + bias_c[None, None], (x_bnc, scale_c, mean_b1c, inverse_b1c)


def _norm_backward(
    groups: int, epsilon: float, kept: tuple[jax.Array, ...], gradient_bnc: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """With x' the normalized x: gradient of x is (g s - mean(g s) - x' mean(g s x')) / deviation, means over groups."""
    x_bnc, scale_c, mean_b1c, inverse_b1c = kept
    count, centred, scale = x_bnc.shape[1], x_bnc - mean_b1c, scale_c[None, None]
    sum_b1c, along_b1c = _position_mean(gradient_bnc), _position_mean(gradient_bnc * centred)
    level, slope = (_over_groups(stat_b1c * scale, groups) for stat_b1c in (sum_b1c, along_b1c))
    x = gradient_bnc * (inverse_b1c * scale) - centred * (inverse_b1c**3 * slope) - inverse_b1c * level
    return x, count * (along_b1c * inverse_b1c).sum((0, 1)), count * sum_b1c.sum((0, 1))


_group_norm_of_products.defvjp(_norm_forward, _norm_backward)
_norm_traced = jax.jit(_group_norm_of_products, static_argnums=(3, 4))


def _position_mean(x_bnc: jax.Array) -> jax.Array:
    """(b, 1, c). Sums of few positions are of halves, since XLA does not vectorize their reduction. A product with ones
    is as fast, but is compiled anew wherever it stands, while equal fusions are compiled once. Without the division
    here a sum and the product over groups would go to YNNPACK together, and take three times as long."""
    n = count = x_bnc.shape[1]
    while count <= _FEW and count % 2 == 0:
        count //= 2
        x_bnc = x_bnc[:, :count] + x_bnc[:, count:]
    return x_bnc.sum(1, keepdims=True) / n


def _over_groups(stat_b1c: jax.Array, groups: int) -> jax.Array:
    """Means over the channels of a group, at each of its channels: (b, 1, c). A product's result lies in memory, so
    that the loop that uses it need not look up each channel's group."""
    width = stat_b1c.shape[-1] // groups
    member_gc = np.repeat(np.eye(groups, dtype=stat_b1c.dtype), width, axis=1)
    return (stat_b1c @ (member_gc.T / width)) @ member_gc


def layer_norm(x_nc: jax.Array, scale_c: jax.Array, bias_c: jax.Array, epsilon: float) -> jax.Array:
    """Each row to mean 0 and variance 1 over its channels, then scaled and shifted; in float32, of x in its own type.

    The variance is of the centred values. On a CPU the gradient is in closed form too: XLA keeps what it derives by
    itself in six arrays, of which each is a loop of its own.
    """
    if platform() == "cpu":
        return _layer_norm_traced(x_nc, scale_c, bias_c, epsilon)
    return _layer_forward(x_nc, scale_c, bias_c, epsilon)[0]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm_of_rows(x_nc: jax.Array, scale_c: jax.Array, bias_c: jax.Array, epsilon: float) -> jax.Array:
    return _layer_forward(x_nc, scale_c, bias_c, epsilon)[0]


def _layer_forward(
    x_nc: jax.Array, scale_c: jax.Array, bias_c: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide_nc = x_nc.astype(jnp.float32)
    mean_n1 = wide_nc.mean(1, keepdims=True)
    centred = wide_nc - mean_n1
    inverse_n1 = lax.rsqrt(jnp.square(centred).mean(1, keepdims=True) + epsilon)
    return centred * inverse_n1 * scale_c[None] + bias_c[None], (x_nc, scale_c, mean_n1, inverse_n1)


def _layer_backward(
    epsilon: float, kept: tuple[jax.Array, ...], gradient_nc: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`_norm_backward`'s, the rows being the groups. What the forward pass computes again here, XLA keeps: x minus its
    mean, which is why nothing else is written as it is there."""
    x_nc, scale_c, mean_n1, inverse_n1 = kept
    centred, scaled = x_nc.astype(jnp.float32) - mean_n1, gradient_nc * scale_c[None]
    level, along = scaled.mean(1, keepdims=True), (scaled * centred).mean(1, keepdims=True)
    x = (scaled - level) * inverse_n1 - centred * (inverse_n1**3 * along)
    return x.astype(x_nc.dtype), (gradient_nc * centred * inverse_n1).sum(0), gradient_nc.sum(0)


_layer_norm_of_rows.defvjp(_layer_forward, _layer_backward)
_layer_norm_traced = jax.jit(_layer_norm_of_rows, static_argnums=3)


def silu(x: jax.Array) -> jax.Array:
    """x sigmoid(x). On a CPU the gradient computes the sigmoid again, by another function: what both passes compute the
    same way XLA keeps in an array, which a loop of its own writes."""
    return _silu_traced(x) if platform() == "cpu" else jax.nn.silu(x)


@jax.custom_vjp
def _silu(x: jax.Array) -> jax.Array:
    return x * lax.logistic(x)


def _silu_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    share = 0.5 + 0.5 * jnp.tanh(0.5 * x)
    return (gradient * share * (1 + x * (1 - share)),)


_silu.defvjp(lambda x: (_silu(x), x), _silu_backward)
_silu_traced = jax.jit(_silu)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), OpenAI's for CLIP. On a CPU by `silu`, for its gradient."""
    return silu(1.702 * x) / 1.702 if platform() == "cpu" else x * jax.nn.sigmoid(1.702 * x)


def gated_gelu(value: jax.Array, gate: jax.Array) -> jax.Array:
    """value gelu(gate), GEGLU's (Shazeer 2020, arXiv:2002.05202). On a CPU the gradient computes erf again, by
    another function; see `silu`."""
    return _gated_traced(value, gate) if platform() == "cpu" else value * gelu(gate)


@jax.custom_vjp
def _gated_gelu(value: jax.Array, gate: jax.Array) -> jax.Array:
    return value * gelu(gate)


def _gated_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, gate = kept
    below = 0.5 - 0.5 * lax.erf(gate * -math.sqrt(0.5))
    density = jnp.exp(-0.5 * jnp.square(gate)) / math.sqrt(2 * math.pi)
    return gradient * gate * below, gradient * value * (below + gate * density)


_gated_gelu.defvjp(lambda value, gate: (_gated_gelu(value, gate), (value, gate)), _gated_backward)
_gated_traced = jax.jit(_gated_gelu)


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's function, by erf as in PyTorch: with its gradient, jax.nn.gelu's erfc takes
    seven times as long on a CPU."""
    return 0.5 * x * (1.0 + lax.erf(x * math.sqrt(0.5)))


def even(x_bk: jax.Array) -> jax.Array:
    """x, its last row twice if their number is odd and attention is to be cuDNN's: that takes even lengths."""
    odd = x_bk.shape[1] % 2 and _meets_cudnn(x_bk)
    return jnp.concatenate([x_bk, x_bk[:, -1:]], axis=1) if odd else x_bk


def _meets_cudnn(x: jax.Array) -> bool:
    return cuda_capability() >= 8 and x.dtype == jnp.bfloat16


def dot_product_attention(
    q_bqnd: jax.Array, k_bknd: jax.Array, v_bknd: jax.Array, causal: bool = False, keys: int | None = None
) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v, (b, q, n, d), n heads. causal: a query sees the keys up to its own position; keys:
    their number, where a last one is `even`'s.

    On a CPU `jax.nn.dot_product_attention` is up to ten times slower than the plain products below, which
    normalize after the value product (a pass over q x d instead of q x k). Neither a GPU nor a TPU should write the
    scores: a GPU gets cuDNN's attention, a TPU JAX's flash attention where they would not fit its fast memory (by its
    compiler, forward and gradient over 4,096 positions move 0.7 GB instead of 7). Elsewhere the library's is used.
    """
    if platform() == "tpu" and not causal and _is_long(q_bqnd, k_bknd):
        return _flash(q_bqnd, k_bknd, v_bknd)
    if platform() != "cpu":
        kernel: Literal["cudnn"] | None = "cudnn" if _suits_cudnn(q_bqnd, k_bknd) else None

        def attend(*of_heads: jax.Array) -> jax.Array:
            lengths = jnp.full(len(of_heads[0]), keys, jnp.int32) if keys not in (None, k_bknd.shape[1]) else None
            return jax.nn.dot_product_attention(
                *of_heads, is_causal=causal, key_value_seq_lengths=lengths, implementation=kernel
            )

        return (of_own_rows(attend) if kernel else attend)(q_bqnd, k_bknd, v_bknd)
    q_bnqd, k_bnkd, v_bnkd = (x.transpose(0, 2, 1, 3) for x in (q_bqnd, k_bknd, v_bknd))
    scores = lax.batch_matmul(q_bnqd * q_bnqd.shape[-1] ** -0.5, k_bnkd.swapaxes(2, 3)).astype(jnp.float32)
    if causal:
        # added, not chosen: the gradient of a choice keeps which, as large as the scores
        scores = scores + np.triu(np.full(scores.shape[2:], np.finfo(np.float32).min / 2), 1)[None, None]
    # the shift by the maximum cancels in the quotient, so no gradient needs to flow through it
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    out = lax.batch_matmul(weights.astype(v_bnkd.dtype), v_bnkd)
    out = out / weights.sum(-1, keepdims=True).astype(out.dtype)
    return out.transpose(0, 2, 1, 3)


def _suits_cudnn(q_bqnd: jax.Array, k_bknd: jax.Array) -> bool:
    """Its gradient takes even lengths only; of short ones the scores are small."""
    lengths, widest = (q_bqnd.shape[1], k_bknd.shape[1]), 256 if cuda_capability() >= 9 else 128
    fits = q_bqnd.shape[-1] % 8 == 0 and q_bqnd.shape[-1] <= widest
    suits = fits and min(lengths) >= 64 and not any(n % 2 for n in lengths)
    return _meets_cudnn(q_bqnd) and suits and knows_rows(len(q_bqnd))


def _is_long(q_bqnd: jax.Array, k_bknd: jax.Array) -> bool:
    lengths = q_bqnd.shape[1], k_bknd.shape[1]
    fits = min(lengths) >= 1024 and all(n % 128 == 0 for n in lengths) and q_bqnd.shape[-1] <= 256
    return fits and knows_rows(q_bqnd.shape[0])


def _flash(q_bqnd: jax.Array, k_bknd: jax.Array, v_bknd: jax.Array) -> jax.Array:
    """Flash attention, each device its own rows: XLA cannot split a kernel by itself."""
    from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes, flash_attention  # on a TPU alone

    q, k = (math.gcd(x.shape[1], 512) for x in (q_bqnd, k_bknd))
    blocks = BlockSizes(
        block_q=q, block_k_major=k, block_k=k, block_b=1,
        block_q_major_dkv=q, block_k_major_dkv=k, block_q_dkv=q, block_k_dkv=k,
        block_k_major_dq=k, block_k_dq=k, block_q_dq=q,
    )  # fmt: skip

    def attend(*of_heads: jax.Array) -> jax.Array:
        positions_last = (x.transpose(0, 2, 1, 3) for x in of_heads)
        out = flash_attention(*positions_last, sm_scale=q_bqnd.shape[-1] ** -0.5, block_sizes=blocks)
        return out.transpose(0, 2, 1, 3)

    return of_own_rows(attend)(q_bqnd, k_bknd, v_bknd)
