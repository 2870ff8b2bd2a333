"""Group normalization, and SiLU after it, on a GPU, as kernels of Triton by Pallas: one that sums and one that applies,
and two for the gradient. XLA reads and writes the values some ten times, in nine kernels.

A program of the grid has a chunk of one image's positions, with all their channels, which lie beside each other.

Axes: b batch, n positions, c channels, g groups, w channels of a group, k chunks; r positions of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

_TILE = 4096  # values that a program holds at once
_CHUNKS = 64  # of an image, at most
_WARPS = 8  # of a program


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def group_norm_kernel(
    x_bnc: jax.Array,
    shift_bc: jax.Array | None,
    scale_c: jax.Array,
    bias_c: jax.Array,
    groups: int,
    epsilon: float,
    activated: bool,
) -> jax.Array:
    """`formulations.group_norm` in x's dtype, computed in float32."""
    return _forward(x_bnc, shift_bc, scale_c, bias_c, groups, epsilon, activated)[0]


def _forward(
    x_bnc: jax.Array,
    shift_bc: jax.Array | None,
    scale_c: jax.Array,
    bias_c: jax.Array,
    groups: int,
    epsilon: float,
    activated: bool,
) -> tuple[jax.Array, tuple[jax.Array | None, ...]]:
    call = _Call(x_bnc, shift_bc, groups)
    sums = [call.sums(sum_bkg) for sum_bkg in call(_add_up, [], call.two_sums)]
    normalize = partial(_normalize, epsilon=epsilon, activated=activated)
    operands = [call.channels(scale_c), call.channels(bias_c), *sums]
    y_bngw, *stats_bg = call(normalize, operands, [call.like_x, call.statistic, call.statistic])
    return y_bngw.reshape(x_bnc.shape), (x_bnc, shift_bc, scale_c, bias_c, *stats_bg)


def _backward(
    groups: int, epsilon: float, activated: bool, kept: tuple[Any, ...], gradient_bnc: jax.Array
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array]:
    x_bnc, shift_bc, scale_c, bias_c, *stats_bg = kept
    call = _Call(x_bnc, shift_bc, groups)
    operands = [call.values(gradient_bnc), call.channels(scale_c), call.channels(bias_c), *map(call.stat, stats_bg)]
    sums = [call.sums(sum_bkg) for sum_bkg in call(partial(_pull_sums, activated=activated), operands, call.two_sums)]
    (of_x_bngw,) = call(partial(_pull, activated=activated), [*operands, *sums], [call.like_x])
    of_x = of_x_bngw.reshape(x_bnc.shape)
    # the other gradients by XLA, which leaves out those that nothing asks for
    wide = lambda x_bg: jnp.repeat(x_bg, x_bnc.shape[2] // groups, axis=1)[:, None]  # noqa: E731
    mean_b1c, inverse_b1c = map(wide, stats_bg)
    shifted = x_bnc.astype(jnp.float32) + (0.0 if shift_bc is None else shift_bc[:, None].astype(jnp.float32))
    normal = (shifted - mean_b1c) * inverse_b1c
    before = normal * scale_c[None, None] + bias_c[None, None]
    pulled = _before_silu(gradient_bnc.astype(jnp.float32), before, activated)
    of_scale, of_bias = (pulled * normal).sum((0, 1)), pulled.sum((0, 1))
    of_shift = None if shift_bc is None else of_x.astype(jnp.float32).sum(1).astype(shift_bc.dtype)
    return of_x, of_shift, of_scale.astype(scale_c.dtype), of_bias.astype(bias_c.dtype)


group_norm_kernel.defvjp(_forward, _backward)


def _before_silu(gradient: jax.Array, before: jax.Array, activated: bool) -> jax.Array:
    """The gradient of what SiLU is given, of what it gives."""
    if not activated:
        return gradient
    share = jax.nn.sigmoid(before)
    return gradient * share * (1 + before * (1 - share))


_Operand = tuple[jax.Array, pl.BlockSpec]
_Output = tuple[jax.ShapeDtypeStruct, pl.BlockSpec]


class _Call:
    """Calls kernels on one array, its shift and what else they take. A block's sides are powers of 2, as Triton wants
    them: past the array's ends nothing is read or written."""

    def __init__(self, x_bnc: jax.Array, shift_bc: jax.Array | None, groups: int) -> None:
        b, n, c = x_bnc.shape
        self.shape = b, n, groups, c // groups
        self.sides = pl.next_power_of_2(groups), pl.next_power_of_2(c // groups)
        rows = min(max(_TILE // math.prod(self.sides), 1), pl.next_power_of_2(n))
        tiles = pl.cdiv(n, rows)
        each = pl.cdiv(tiles, _CHUNKS)  # tiles a chunk
        self.chunks = pl.cdiv(tiles, each)
        self.chunk = _Chunk(self.shape, (rows, *self.sides), each, self.chunks, shift_bc is not None)
        self.x = [self.values(x_bnc)]
        if shift_bc is not None:
            spec = pl.BlockSpec((None, *self.sides), lambda i, k: (i, 0, 0))
            self.x.append((shift_bc.reshape(b, *self.shape[2:]), spec))
        self.like_x: _Output = jax.ShapeDtypeStruct(self.shape, x_bnc.dtype), self.x[0][1]
        stat_bg = jax.ShapeDtypeStruct((b, groups), jnp.float32)
        self.statistic: _Output = self.stat(stat_bg)
        sum_bkg = jax.ShapeDtypeStruct((b, self.chunks, groups), jnp.float32)
        self.two_sums: list[_Output] = [
            (sum_bkg, pl.BlockSpec((None, None, self.sides[0]), lambda i, k: (i, k, 0)))
        ] * 2

    def values(self, x_bnc: jax.Array) -> _Operand:
        """An image's."""
        spec = pl.BlockSpec((None, self.shape[1], *self.sides), lambda i, k: (i, 0, 0, 0))
        return x_bnc.reshape(self.shape), spec

    def channels(self, x_c: jax.Array) -> _Operand:
        """A value a channel."""
        return x_c.reshape(self.shape[2:]), pl.BlockSpec(self.sides, lambda i, k: (0, 0))

    def stat(self, x_bg: Any) -> Any:
        """A value a group of the image."""
        return x_bg, pl.BlockSpec((None, self.sides[0]), lambda i, k: (i, 0))

    def sums(self, x_bkg: jax.Array) -> _Operand:
        """Those of all the image's chunks."""
        spec = pl.BlockSpec((None, pl.next_power_of_2(self.chunks), self.sides[0]), lambda i, k: (i, 0, 0))
        return x_bkg, spec

    def __call__(
        self, kernel: Callable[..., None], operands: Sequence[_Operand], outputs: Sequence[_Output]
    ) -> list[jax.Array]:
        """The kernel of every image and chunk."""
        given = [*self.x, *operands]
        call = pl.pallas_call(
            partial(kernel, self.chunk),
            grid=(self.shape[0], self.chunks),
            in_specs=[spec for _, spec in given],
            out_specs=[spec for _, spec in outputs],
            out_shape=[shape for shape, _ in outputs],
            compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=2),
            interpret=jax.default_backend() == "cpu",
            name="group_norm",
        )
        return list(call(*(x for x, _ in given)))


class _Chunk:
    """What a program works on; its methods load and store within the array's ends, as float32."""

    def __init__(self, shape: tuple[int, ...], tile: tuple[int, ...], each: int, chunks: int, shifted: bool) -> None:
        _, self.positions, self.groups, self.width = shape
        self.tile, self.each, self.chunks, self.shifted = tile, each, chunks, shifted

    def reader(self, refs: Sequence[Any]) -> tuple[Callable[[jax.Array], jax.Array], Sequence[Any]]:
        """What gives x of a tile, shifted if it is to be, by the first of the references; and the other ones."""
        if not self.shifted:
            return partial(self.load, refs[0]), refs[1:]
        shift = self.channels(refs[1])
        return lambda tile: self.load(refs[0], tile) + shift, refs[2:]

    def _channels(self) -> jax.Array:
        g, w = (lax.broadcasted_iota(jnp.int32, self.tile[1:], axis) for axis in (0, 1))
        return (g < self.groups) & (w < self.width)

    def _groups(self) -> jax.Array:
        return jnp.arange(self.tile[1]) < self.groups

    def inside(self, tile: jax.Array) -> jax.Array:
        """Of a tile what there is, (r, g, w)."""
        position = tile * self.tile[0] + lax.broadcasted_iota(jnp.int32, self.tile, 0)
        return (position < self.positions) & self._channels()[None]

    def _at(self, ref: Any, tile: jax.Array) -> Any:
        return ref.at[pl.ds(tile * self.tile[0], self.tile[0]), :, :]

    def load(self, ref: Any, tile: jax.Array) -> jax.Array:
        """A tile (r, g, w), zero outside."""
        return triton.load(self._at(ref, tile), mask=self.inside(tile), other=0.0).astype(jnp.float32)

    def store(self, ref: Any, tile: jax.Array, values: jax.Array) -> None:
        triton.store(self._at(ref, tile), values.astype(ref.dtype), mask=self.inside(tile))

    def channels(self, ref: Any) -> jax.Array:
        """(1, g, w), zero outside."""
        return triton.load(ref.at[:, :], mask=self._channels(), other=0.0).astype(jnp.float32)[None]

    def first(self, ref: Any) -> jax.Array:
        """Means of the groups at the image's first position, (g,)."""
        values = triton.load(ref.at[pl.ds(0, 1), :, :], mask=self._channels()[None], other=0.0)
        return values.astype(jnp.float32).sum(2).sum(0) / self.width

    def stat(self, ref: Any) -> jax.Array:
        """(1, g, 1)."""
        return triton.load(ref.at[:], mask=self._groups(), other=0.0)[None, :, None]

    def put(self, ref: Any, of_groups: jax.Array) -> None:
        """Store a value for each group."""
        triton.store(ref.at[:], of_groups, mask=self._groups())

    def mean(self, ref: Any) -> jax.Array:
        """Of the sums of all chunks, (g,)."""
        shape = pl.next_power_of_2(self.chunks), self.tile[1]
        k, g = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
        sums = triton.load(ref.at[:, :], mask=(k < self.chunks) & (g < self.groups), other=0.0)
        return sums.sum(0) / (self.positions * self.width)

    def over(self, body: Callable[[jax.Array, Any], Any], carry: Any) -> Any:
        """`body` of each of the program's tiles."""
        begin = pl.program_id(1) * self.each
        return lax.fori_loop(0, self.each, lambda i, carry: body(begin + i, carry), carry)

    def fill(self, ref: Any, body: Callable[[jax.Array], jax.Array]) -> None:
        """Store what `body` makes of each tile."""

        def write(tile: jax.Array, carry: jax.Array) -> jax.Array:
            self.store(ref, tile, body(tile))
            return carry

        self.over(write, jnp.int32(0))

    def put_sums(self, refs: Sequence[Any], body: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> None:
        """Store sums over positions and channels, (g,), of the two (r, g, w) that `body` makes of each tile."""
        zeros = jnp.zeros(self.tile, jnp.float32)

        def add(tile: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            one, other = body(tile)
            return sums[0] + one, sums[1] + other

        for ref, sums in zip(refs, self.over(add, (zeros, zeros)), strict=True):
            self.put(ref, sums.sum(2).sum(0))


def _add_up(chunk: _Chunk, *refs: Any) -> None:
    """Sums of x and of its square, from a value near x on, so that nothing large cancels."""
    (x, outputs), near = chunk.reader(refs), chunk.first(refs[0])[None, :, None]

    def both(tile: jax.Array) -> tuple[jax.Array, jax.Array]:
        from_near = jnp.where(chunk.inside(tile), x(tile) - near, 0.0)
        return from_near, from_near * from_near

    chunk.put_sums(outputs, both)


def _normalize(chunk: _Chunk, *refs: Any, epsilon: float, activated: bool) -> None:
    x, (scale_ref, bias_ref, sum_ref, square_ref, y_ref, mean_ref, inverse_ref) = chunk.reader(refs)
    from_near = chunk.mean(sum_ref)
    mean_g, variance_g = chunk.first(refs[0]) + from_near, chunk.mean(square_ref) - from_near * from_near
    inverse_g = lax.rsqrt(jnp.maximum(variance_g, 0.0) + epsilon)  # rounding can take it below 0
    chunk.put(mean_ref, mean_g)
    chunk.put(inverse_ref, inverse_g)
    gain = inverse_g[None, :, None] * chunk.channels(scale_ref)
    bias = chunk.channels(bias_ref) - mean_g[None, :, None] * gain

    def normalized(tile: jax.Array) -> jax.Array:
        y = x(tile) * gain + bias
        return y * jax.nn.sigmoid(y) if activated else y

    chunk.fill(y_ref, normalized)


_Read = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def _pulled(chunk: _Chunk, refs: Sequence[Any], activated: bool) -> tuple[_Read, jax.Array, Sequence[Any]]:
    """What gives the normalized x of a tile and the gradient of that, which is zero outside, as the gradient and the
    scale are there; 1 / deviation; and the references that are left."""
    x, (gradient_ref, scale_ref, bias_ref, mean_ref, inverse_ref, *rest) = chunk.reader(refs)
    scale, bias = chunk.channels(scale_ref), chunk.channels(bias_ref)
    mean, inverse = chunk.stat(mean_ref), chunk.stat(inverse_ref)

    def read(tile: jax.Array) -> tuple[jax.Array, jax.Array]:
        normal = (x(tile) - mean) * inverse
        return normal, _before_silu(chunk.load(gradient_ref, tile), normal * scale + bias, activated) * scale

    return read, inverse, rest


def _pull_sums(chunk: _Chunk, *refs: Any, activated: bool) -> None:
    read, _, outputs = _pulled(chunk, refs, activated)

    def both(tile: jax.Array) -> tuple[jax.Array, jax.Array]:
        normal, pulled = read(tile)
        return pulled, pulled * normal

    chunk.put_sums(outputs, both)


def _pull(chunk: _Chunk, *refs: Any, activated: bool) -> None:
    """With x' the normalized x: (g s - mean(g s) - x' mean(g s x')) / deviation, means over the group."""
    read, inverse, (level_ref, slope_ref, of_x_ref) = _pulled(chunk, refs, activated)
    level, slope = (chunk.mean(ref)[None, :, None] for ref in (level_ref, slope_ref))

    def of_x(tile: jax.Array) -> jax.Array:
        normal, pulled = read(tile)
        return (pulled - level - normal * slope) * inverse

    chunk.fill(of_x_ref, of_x)
