"""Convolutions, each in the formulation that is fast on the device at hand (see `formulations`).

On GPU and TPU they are the library's. XLA's own on a CPU copies a reversed kernel in gradients, takes a slow path over
two rows or columns, and multiplies as often as the definition says.

Axes: b batch, h/w image, c channels, n rows, i/o inputs and outputs of a kernel, t positions in a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cns_jax.core.xla.platform import platform
from cns_jax.nn.ops.formulations import hoisted, kernel_first, linear

_NHWC = ("NHWC", "HWIO", "NHWC")
_COLOURS = 3
_NARROW = 16  # outputs that fill less than a vector or leave its product waiting for inputs
_ADDED = 10  # outputs of a 3 x 3 kernel for each position at which its taps are added up

# by tiles only if transforming the kernel (positions) and the picture (channels, 1 / (1 / inputs + 1 / outputs)) is the
# lesser part, and products are large enough for several cores
_POSITIONS, _CHANNELS, _PRODUCTS = 512, 16, 6e6

# Winograd's F(2, 3), (Lavin and Gray 2016, arXiv:1509.09308, section 4.1): two outputs of three taps by four products;
# each of its four inputs is one of four pixels in a row and, with a sign, another one
_ONE, _OTHER, _SIGN = np.array([0, 1, 2, 1]), np.array([2, 2, 1, 3]), np.array([-1, 1, -1, -1], np.float32)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_OUTPUTS = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)
_REVERSED = [3, 1, 2, 0]  # the order of a reversed kernel's products

# of a pixel's first copy and of its second: two taps, each the sum of a kernel's three that fall on the same pixel
_COPIES = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


_Rule = Callable[[jax.Array, jax.Array], tuple[jax.Array, tuple[jax.Array, jax.Array]]]


def _keeping(function: Callable[[jax.Array, jax.Array], jax.Array]) -> _Rule:
    """The forward rule of a gradient that needs input and kernel."""
    return lambda x_bhwc, kernel_hwio: (function(x_bhwc, kernel_hwio), (x_bhwc, kernel_hwio))


def convolution(x_bhwc: jax.Array, kernel_hwio: jax.Array, stride: int, pad: int) -> jax.Array:
    """A convolution with `pad` zeros on every side.

    On a CPU one of 3 x 3 over two rows or columns, or of a picture's colours, is a product with its unfolded input
    (2 x 2 x 2 x 1,280: 7 ms instead of 244; 16 x 64 x 64 x 3: 0.9 for 2.1), and the gradient of fewer positions than
    outputs is folded from a product with the kernel first (2 x 4 x 4 x 1,280: 12 ms instead of 64, which went into a
    reversed copy of the kernel). Over many positions it takes 16 products for four outputs instead of 36 (64 x 64 x
    256: 14 ms instead of 24). With few outputs it computes some pixels at once (16 x 64 x 64 x 16 to 3: 1.3 ms instead
    of 4.0).
    """
    size, _, inputs, outputs = kernel_hwio.shape
    if size == stride == 1 and pad == 0:
        return linear(x_bhwc.reshape(-1, inputs), kernel_hwio[0, 0]).reshape(*x_bhwc.shape[:-1], outputs)
    b, h, w, _ = x_bhwc.shape
    if platform() == "cpu" and (size, stride, pad) == (3, 1, 1):
        if _unfolds(x_bhwc) or b * h * w < outputs:
            return _convolution_traced(x_bhwc, kernel_hwio)
        if _fits_tiles(x_bhwc, kernel_hwio):
            return _tiles_traced(x_bhwc, kernel_hwio)
        if outputs <= _NARROW and w % 4 == 0:
            return _narrow_traced(x_bhwc, kernel_hwio)
    return _convolution(x_bhwc, kernel_hwio, stride, pad)


def _convolution(x_bhwc: jax.Array, kernel_hwio: jax.Array, stride: int, pad: int) -> jax.Array:
    if platform() == "cpu":
        return _plain_traced(x_bhwc, kernel_hwio, stride, pad)
    return _plain(x_bhwc, kernel_hwio, stride, pad)


def _plain(x_bhwc: jax.Array, kernel_hwio: jax.Array, stride: int, pad: int) -> jax.Array:
    padding = ((pad, pad), (pad, pad))
    return lax.conv_general_dilated(x_bhwc, kernel_hwio, (stride, stride), padding, dimension_numbers=_NHWC)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution_of_loops(x_bhwc: jax.Array, kernel_hwio: jax.Array, stride: int, pad: int) -> jax.Array:
    """The library's but for the input's gradient, which turns the kernel itself: of the library's, which names outputs
    as inputs, XLA makes what its fast path takes outside of loops only."""
    return _plain(x_bhwc, kernel_hwio, stride, pad)


def _loops_forward(
    x_bhwc: jax.Array, kernel_hwio: jax.Array, stride: int, pad: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolution_of_loops(x_bhwc, kernel_hwio, stride, pad), (x_bhwc, kernel_hwio)


def _loops_backward(
    stride: int, pad: int, kept: tuple[jax.Array, jax.Array], gradient_bhwo: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_bhwc, kernel_hwio = kept
    _, pull = jax.vjp(lambda kernel: _plain(x_bhwc, kernel, stride, pad), kernel_hwio)
    kernel = pull(gradient_bhwo)[0]
    if gradient_bhwo.size < kernel_hwio.shape[3] ** 2:  # fewer positions than outputs
        return _folded(kernel_hwio, gradient_bhwo, x_bhwc.shape, stride, pad), kernel
    size = kernel_hwio.shape[0]
    turned_hwoi = hoisted(jnp.flip(kernel_hwio, (0, 1)).swapaxes(2, 3))
    before = size - 1 - pad
    after = [
        length - (stride * (out - 1) + 1) + pad
        for length, out in zip(x_bhwc.shape[1:3], gradient_bhwo.shape[1:3], strict=True)
    ]
    x = lax.conv_general_dilated(
        gradient_bhwo, turned_hwoi, (1, 1), [(before, a) for a in after], lhs_dilation=(stride, stride),
        dimension_numbers=_NHWC,
    )  # fmt: skip
    return x, kernel


_convolution_of_loops.defvjp(_loops_forward, _loops_backward)
_plain_traced = jax.jit(_convolution_of_loops, static_argnums=(2, 3))


def enlarged_convolution(x_bhwc: jax.Array, kernel_hwio: jax.Array) -> jax.Array:
    """Every pixel to four equal ones, then a convolution of 3 x 3 with zeros around: (b, 2 h, 2 w, o).

    On a CPU each of the four is a convolution of 2 x 2 over x, the taps that meet the same pixel added up: 4/9 of the
    work, half the time (16 x 8 x 8 x 96 to 96: 2.2 ms instead of 3.6), unless adding them is most of it.
    """
    b, h, w, _ = x_bhwc.shape
    if platform() == "cpu" and b * h * w >= kernel_hwio.shape[-1] // _ADDED:
        return _enlarged_traced(x_bhwc, kernel_hwio)
    whole = jnp.broadcast_to(x_bhwc[:, :, None, :, None], (b, h, 2, w, 2, x_bhwc.shape[-1]))
    return convolution(whole.reshape(b, 2 * h, 2 * w, -1), kernel_hwio, 1, 1)


def _enlarged_of_four(x_bhwc: jax.Array, kernel_hwio: jax.Array) -> jax.Array:
    b, h, w, _ = x_bhwc.shape
    rows = []
    for i in range(2):
        parts = [
            lax.conv_general_dilated(
                x_bhwc, _added(kernel_hwio, _COPIES[i], _COPIES[j]), (1, 1), ((1 - i, i), (1 - j, j)),
                dimension_numbers=_NHWC,
            )
            for j in range(2)
        ]  # fmt: skip
        rows.append(jnp.stack(parts, axis=3))
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, -1)


def _added(kernel_hwio: jax.Array, of_rows: np.ndarray, of_columns: np.ndarray) -> jax.Array:
    """The kernel whose rows and columns are these sums of its rows and columns; a product, so nothing to compile."""
    sums = jnp.asarray(np.kron(of_rows, of_columns), kernel_hwio.dtype) @ kernel_hwio.reshape(9, -1)
    return sums.reshape(len(of_rows), len(of_columns), *kernel_hwio.shape[2:])


def _enlarged_backward(kept: tuple[jax.Array, jax.Array], gradient_bhwo: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A pixel's gradient is of the 4 x 4 around its copies, all taps in one convolution that steps over copies."""
    x_bhwc, kernel_hwio = kept
    taps = np.concatenate(_COPIES)[_REVERSED]
    x = lax.conv_general_dilated(
        gradient_bhwo, hoisted(_added(kernel_hwio, taps, taps).swapaxes(2, 3)), (2, 2), ((1, 1), (1, 1)),
        dimension_numbers=_NHWC,
    )  # fmt: skip
    _, pull = jax.vjp(lambda kernel: _enlarged_of_four(x_bhwc, kernel), kernel_hwio)
    return x, pull(gradient_bhwo)[0]


_enlarged = jax.custom_vjp(_enlarged_of_four)
_enlarged.defvjp(_keeping(_enlarged_of_four), _enlarged_backward)
_enlarged_traced = jax.jit(_enlarged)


def _unfolds(x_bhwc: jax.Array) -> bool:
    return min(x_bhwc.shape[1:3]) <= 2 or x_bhwc.shape[-1] <= _COLOURS


@jax.custom_vjp
def _convolution_of_few(x_bhwc: jax.Array, kernel_hwio: jax.Array) -> jax.Array:
    if not _unfolds(x_bhwc):
        return _convolution(x_bhwc, kernel_hwio, 1, 1)
    out_no = _unfolded(x_bhwc) @ kernel_hwio.reshape(-1, kernel_hwio.shape[-1])
    return out_no.reshape(*x_bhwc.shape[:3], -1)


def _few_backward(kept: tuple[jax.Array, jax.Array], gradient_bhwo: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_bhwc, kernel_hwio = kept
    kernel = _unfolded(x_bhwc).T @ gradient_bhwo.reshape(-1, kernel_hwio.shape[-1])
    return _folded(kernel_hwio, gradient_bhwo, x_bhwc.shape, 1, 1), kernel.reshape(kernel_hwio.shape)


def _folded(
    kernel_hwio: jax.Array, gradient_bhwo: jax.Array, shape: tuple[int, ...], stride: int, pad: int
) -> jax.Array:
    """The gradient of an input of this shape: all taps of a product with the kernel first, each added where it was."""
    size, _, c, _ = kernel_hwio.shape
    b, *of_outputs, o = gradient_bhwo.shape
    parts = kernel_first(kernel_hwio.reshape(-1, o), gradient_bhwo.reshape(-1, o))
    parts = parts.reshape(size, size, c, b, *of_outputs)

    def around(tap: int, axis: int) -> tuple[int, int, int]:
        return tap - pad, shape[axis] - stride * (of_outputs[axis - 1] - 1) - 1 - tap + pad, stride - 1

    nothing, whole = jnp.zeros((), parts.dtype), (0, 0, 0)
    x_cbhw = sum(
        lax.pad(parts[i, j], nothing, (whole, whole, around(i, 1), around(j, 2)))
        for i in range(size)
        for j in range(size)
    )
    return jnp.transpose(x_cbhw, (1, 2, 3, 0))


_convolution_of_few.defvjp(_keeping(_convolution_of_few), _few_backward)
_convolution_traced = jax.jit(_convolution_of_few)


def _unfolded(x_bhwc: jax.Array) -> jax.Array:
    """The 3 x 3 neighbours of every position, (b h w, 9 c). Gathered in rows, then three rows stacked: nine slices
    stacked compile and run twice as long."""
    b, h, w, c = x_bhwc.shape
    padded = jnp.pad(x_bhwc, ((0, 0), (1, 1), (1, 1), (0, 0)))
    in_rows = padded[:, :, np.arange(w)[:, None] + np.arange(3)]
    return jnp.stack([in_rows[:, i : i + h] for i in range(3)], axis=3).reshape(b * h * w, 9 * c)


@jax.custom_vjp
def _convolution_of_pixels(x_bhwc: jax.Array, kernel_hwio: jax.Array) -> jax.Array:
    """Two or four pixels of a row are the outputs of one wider kernel, which holds the kernel once for each of them,
    moved, and zeros: a third or a half more products, but as many more outputs for what is read."""
    b, h, w, _ = x_bhwc.shape
    _, _, inputs, outputs = kernel_hwio.shape
    pixels = 4 if outputs <= 4 else 2
    moved = [jnp.pad(kernel_hwio, ((0, 0), (p, pixels - 1 - p), (0, 0), (0, 0))) for p in range(pixels)]
    wider = jnp.stack(moved, axis=3).reshape(3, pixels + 2, inputs, pixels * outputs)
    padding = ((1, 1), (1, 1))
    out = lax.conv_general_dilated(x_bhwc, wider, (1, pixels), padding, dimension_numbers=_NHWC)
    return out.reshape(b, h, w, outputs)


def _pixels_backward(kept: tuple[jax.Array, jax.Array], gradient_bhwo: jax.Array) -> tuple[jax.Array, jax.Array]:
    _, pull = jax.vjp(lambda x, kernel: _convolution(x, kernel, 1, 1), *kept)
    x, kernel = pull(gradient_bhwo)
    return x, kernel


_convolution_of_pixels.defvjp(_keeping(_convolution_of_pixels), _pixels_backward)
_narrow_traced = jax.jit(_convolution_of_pixels)


def _fits_tiles(x_bhwc: jax.Array, kernel_hwio: jax.Array) -> bool:
    b, h, w, _ = x_bhwc.shape
    _, _, inputs, outputs = kernel_hwio.shape
    even = h % 2 == w % 2 == 0 and x_bhwc.dtype == jnp.float32
    wide = inputs * outputs >= _CHANNELS * (inputs + outputs)
    return even and wide and b * h * w >= _POSITIONS and b * h * w * inputs * outputs >= _PRODUCTS


@jax.custom_vjp
def _convolution_of_tiles(x_bhwc: jax.Array, kernel_hwio: jax.Array) -> jax.Array:
    """Winograd's F(2 x 2, 3 x 3): each 2 x 2 of outputs by one product for each position of a 4 x 4 tile of sums of
    inputs, summed again. As exact as the plain one in float32 (larger tiles are not)."""
    products_tno = lax.batch_matmul(_tiles(x_bhwc, [0, 1, 2, 3]), _transformed(kernel_hwio))
    return _whole(products_tno, x_bhwc, _OUTPUTS)


def _tiles_backward(kept: tuple[jax.Array, jax.Array], gradient_bhwo: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The input's gradient is a convolution with the reversed kernel, whose products are the kernel's in another order:
    rather than it, tiles are put in that order."""
    x_bhwc, kernel_hwio = kept
    gradients_tno = _tiles(gradient_bhwo, _REVERSED)
    products_tni = lax.dot_general(gradients_tno, _transformed(kernel_hwio), (((2,), (2,)), ((0,), (0,))))
    _, pull = jax.vjp(lambda kernel: _convolution(x_bhwc, kernel, 1, 1), kernel_hwio)
    return _whole(products_tni, x_bhwc, _OUTPUTS[:, _REVERSED]), pull(gradient_bhwo)[0]


_convolution_of_tiles.defvjp(_keeping(_convolution_of_tiles), _tiles_backward)
_tiles_traced = jax.jit(_convolution_of_tiles)


def _tiles(x_bhwc: jax.Array, order: list[int]) -> jax.Array:
    """What products take of each 4 x 4 tile, which overlap by two, in this order along both sides: (16, n, c), n tiles.

    Gathered, it is one loop to compile; of slices it is 16, or two that stack them and take longer.
    """
    b, h, w, c = x_bhwc.shape
    padded_nc = jnp.pad(x_bhwc, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(-1, c)
    _, _, image, row, column = (lax.broadcasted_iota(jnp.int32, (4, 4, b, h // 2, w // 2), axis) for axis in range(5))
    corner = (image * (h + 2) + 2 * row) * (w + 2) + 2 * column

    def pixels(down: np.ndarray, right: np.ndarray) -> jax.Array:
        away = down[order][:, None] * (w + 2) + right[order][None]
        at = corner + away.astype(np.int32)[:, :, None, None, None]
        return padded_nc.at[at].get(mode="promise_in_bounds", wrap_negative_indices=False)

    def of_columns(down: np.ndarray) -> jax.Array:
        return pixels(down, _ONE) + _SIGN[order][None, :, None, None, None, None] * pixels(down, _OTHER)

    tiles = of_columns(_ONE) + _SIGN[order][:, None, None, None, None, None] * of_columns(_OTHER)
    return tiles.reshape(16, -1, c)


def _transformed(kernel_hwio: jax.Array) -> jax.Array:
    """(16, i, o)."""
    inputs_outputs = kernel_hwio.shape[2:]
    return (jnp.asarray(np.kron(_KERNEL, _KERNEL)) @ kernel_hwio.reshape(9, -1)).reshape(16, *inputs_outputs)


def _whole(products_tno: jax.Array, x_bhwc: jax.Array, sums: np.ndarray) -> jax.Array:
    """Products of tiles back to a picture of x's size."""
    b, h, w, _ = x_bhwc.shape
    parts = (jnp.asarray(np.kron(sums, sums)) @ products_tno.reshape(16, -1)).reshape(2, 2, b, h // 2, w // 2, -1)
    return parts.transpose(2, 3, 0, 4, 1, 5).reshape(b, h, w, -1)
