"""Group normalization, and SiLU after it, on a GPU, as kernels of Triton by Pallas: one that sums and one that applies,
and two for the gradient. XLA reads and writes the values some ten times, in nine kernels.

A program of the grid has a chunk of one image's positions, with all their channels, which lie beside each other.

Axes: b batch, n positions, c channels, g groups, w channels of a group, k chunks; r positions of a tile.
"""

from __future__ import annotations

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
    call, of_channels = _Call(x_bnc, shift_bc, groups), [scale_c, bias_c]
    sums_bkg = call.sums(_add_up, [], [], [])
    normalize = partial(_normalize, epsilon=epsilon, activated=activated)
    y_bnc, *stats_bg = call.outputs(normalize, [], of_channels, [], sums_bkg, 2)
    return y_bnc, (x_bnc, shift_bc, scale_c, bias_c, *stats_bg)


def _backward(
    groups: int, epsilon: float, activated: bool, kept: tuple[Any, ...], gradient_bnc: jax.Array
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array]:
    x_bnc, shift_bc, scale_c, bias_c, *stats_bg = kept
    call, arguments = _Call(x_bnc, shift_bc, groups), ([gradient_bnc], [scale_c, bias_c], stats_bg)
    sums_bkg = call.sums(partial(_pull_sums, activated=activated), *arguments)
    (of_x,) = call.outputs(partial(_pull, activated=activated), *arguments, sums_bkg, 0)
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


class _Call:
    """How the values of one array are shared out. A block's sides are powers of 2, as Triton wants them: past the
    array's ends nothing is read or written."""

    def __init__(self, x_bnc: jax.Array, shift_bc: jax.Array | None, groups: int) -> None:
        b, n, c = x_bnc.shape
        self.x, self.shifts = x_bnc, [] if shift_bc is None else [shift_bc]
        self.shape = b, n, groups, c // groups
        sides = pl.next_power_of_2(groups), pl.next_power_of_2(c // groups)
        rows = min(max(_TILE // (sides[0] * sides[1]), 1), pl.next_power_of_2(n))
        tiles = pl.cdiv(n, rows)
        self.each = pl.cdiv(tiles, _CHUNKS)  # tiles a chunk
        chunks = pl.cdiv(tiles, self.each)
        self.grid, self.tile = (b, chunks), (rows, *sides)
        self.sums_shape = jax.ShapeDtypeStruct((b, chunks, groups), jnp.float32)
        self.stat_shape = jax.ShapeDtypeStruct((b, groups), jnp.float32)
        self.values = pl.BlockSpec((None, n, *sides), lambda i, k: (i, 0, 0, 0))
        self.shift = pl.BlockSpec((None, *sides), lambda i, k: (i, 0, 0))
        self.channels = pl.BlockSpec(sides, lambda i, k: (0, 0))
        self.stat = pl.BlockSpec((None, sides[0]), lambda i, k: (i, 0))
        self.own_sum = pl.BlockSpec((None, None, sides[0]), lambda i, k: (i, k, 0))
        self.all_sums = pl.BlockSpec((None, pl.next_power_of_2(chunks), sides[0]), lambda i, k: (i, 0, 0))

    def sums(self, kernel: Callable[..., None], values: Any, channels: Any, stats: Any) -> list[jax.Array]:
        """Two sums over each chunk and group."""
        outputs = [(self.sums_shape, self.own_sum)] * 2
        return self._run(kernel, values, channels, stats, [], outputs)

    def outputs(
        self, kernel: Callable[..., None], values: Any, channels: Any, stats: Any, sums: Any, made: int
    ) -> list[jax.Array]:
        """An array like x, and `made` statistics of the groups."""
        like_x = jax.ShapeDtypeStruct(self.shape, self.x.dtype)
        outputs = [(like_x, self.values)] + [(self.stat_shape, self.stat)] * made
        out, *found = self._run(kernel, values, channels, stats, sums, outputs)
        return [out.reshape(*self.shape[:2], -1), *found]

    def _run(
        self, kernel: Callable[..., None], values: Any, channels: Any, stats: Any, sums: Any, outputs: Sequence[Any]
    ) -> list[jax.Array]:
        of_image, of_channels = (self.shape[0], *self.shape[2:]), self.shape[2:]
        given = [(self.x.reshape(self.shape), self.values)]
        given += [(x.reshape(of_image), self.shift) for x in self.shifts]
        given += [(x.reshape(self.shape), self.values) for x in values]
        given += [(x.reshape(of_channels), self.channels) for x in channels]
        given += [(x, self.stat) for x in stats] + [(x, self.all_sums) for x in sums]
        call = pl.pallas_call(
            partial(kernel, _Chunk(self.shape, self.tile, self.each, self.grid[1], bool(self.shifts))),
            grid=self.grid,
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

    def two_sums(self, body: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> list[jax.Array]:
        """Sums over positions and channels, (g,), of the two (r, g, w) that `body` makes of a tile."""
        zeros = jnp.zeros(self.tile, jnp.float32)

        def add(tile: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            one, other = body(tile)
            return sums[0] + one, sums[1] + other

        return [sums.sum(2).sum(0) for sums in self.over(add, (zeros, zeros))]


def _add_up(chunk: _Chunk, *refs: Any) -> None:
    """Sums of x and of its square, from a value near x on, so that nothing large cancels."""
    (x, outputs), near = chunk.reader(refs), chunk.first(refs[0])[None, :, None]

    def both(tile: jax.Array) -> tuple[jax.Array, jax.Array]:
        from_near = jnp.where(chunk.inside(tile), x(tile) - near, 0.0)
        return from_near, from_near * from_near

    for ref, sums in zip(outputs, chunk.two_sums(both), strict=True):
        chunk.put(ref, sums)


def _normalize(chunk: _Chunk, *refs: Any, epsilon: float, activated: bool) -> None:
    x, (scale_ref, bias_ref, sum_ref, square_ref, y_ref, mean_ref, inverse_ref) = chunk.reader(refs)
    from_near, square = chunk.mean(sum_ref), chunk.mean(square_ref)
    mean_g, inverse_g = chunk.first(refs[0]) + from_near, lax.rsqrt(square - from_near * from_near + epsilon)
    chunk.put(mean_ref, mean_g)
    chunk.put(inverse_ref, inverse_g)
    gain = inverse_g[None, :, None] * chunk.channels(scale_ref)
    bias = chunk.channels(bias_ref) - mean_g[None, :, None] * gain

    def write(tile: jax.Array, carry: jax.Array) -> jax.Array:
        y = x(tile) * gain + bias
        chunk.store(y_ref, tile, y * jax.nn.sigmoid(y) if activated else y)
        return carry

    chunk.over(write, jnp.int32(0))


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

    for ref, sums in zip(outputs, chunk.two_sums(both), strict=True):
        chunk.put(ref, sums)


def _pull(chunk: _Chunk, *refs: Any, activated: bool) -> None:
    """With x' the normalized x: (g s - mean(g s) - x' mean(g s x')) / deviation, means over the group."""
    read, inverse, (level_ref, slope_ref, of_x_ref) = _pulled(chunk, refs, activated)
    level, slope = (chunk.mean(ref)[None, :, None] for ref in (level_ref, slope_ref))

    def write(tile: jax.Array, carry: jax.Array) -> jax.Array:
        normal, pulled = read(tile)
        chunk.store(of_x_ref, tile, (pulled - level - normal * slope) * inverse)
        return carry

    chunk.over(write, jnp.int32(0))
