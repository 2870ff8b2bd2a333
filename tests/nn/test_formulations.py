"""What a device computes in a formulation of its own is what the library computes, gradients included."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamShapeError
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding

from cns_jax.core.mesh import ROWS, make_mesh, rows_over
from cns_jax.core.xla.platform import PLAIN, compiled_for
from cns_jax.nn.layers import Dense
from cns_jax.nn.ops import convolutions, gpu_norm
from cns_jax.nn.ops.convolutions import convolution, enlarged_convolution
from cns_jax.nn.ops.formulations import (
    dot_product_attention,
    even,
    gated_gelu,
    gelu,
    group_norm,
    layer_norm,
    linear,
    quick_gelu,
    silu,
)

RNG = np.random.default_rng(0)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def values_and_gradients(function: Callable[..., jax.Array], platform: str, arguments: Any) -> Any:
    """Under the formulation of a platform, run here: the output and the gradients of all arguments."""

    def run(*arguments: jax.Array) -> Any:
        out, pull = jax.vjp(function, *arguments)
        return out, pull(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    with compiled_for(platform):
        return jax.jit(run)(*arguments)


CASES: dict[str, tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]] = {
    "linear, few rows": (linear, (normal(3, 8), normal(8, 5))),
    "linear, few rows of a large kernel": (linear, (normal(3, 1024), normal(1024, 600) / 30)),
    "linear, many rows": (linear, (normal(6, 8), normal(8, 5))),
    "3 x 3 over two rows": (lambda x, k: convolution(x, k, 1, 1), (normal(2, 2, 3, 4), normal(3, 3, 4, 5))),
    "3 x 3 over one position": (lambda x, k: convolution(x, k, 1, 1), (normal(1, 1, 1, 4), normal(3, 3, 4, 5))),
    "3 x 3, few positions": (lambda x, k: convolution(x, k, 1, 1), (normal(2, 4, 3, 6), normal(3, 3, 6, 32))),
    "3 x 3, many positions": (lambda x, k: convolution(x, k, 1, 1), (normal(2, 4, 3, 6), normal(3, 3, 6, 5))),
    "3 x 3, halving": (lambda x, k: convolution(x, k, 2, 1), (normal(2, 4, 4, 6), normal(3, 3, 6, 32))),
    "3 x 3, halving many positions": (lambda x, k: convolution(x, k, 2, 1), (normal(2, 4, 4, 6), normal(3, 3, 6, 5))),
    "3 x 3, unpadded, many positions": (lambda x, k: convolution(x, k, 2, 0), (normal(2, 5, 5, 6), normal(3, 3, 6, 5))),
    "3 x 3, unpadded": (lambda x, k: convolution(x, k, 2, 0), (normal(2, 5, 5, 6), normal(3, 3, 6, 32))),
    "3 x 3 of colours": (lambda x, k: convolution(x, k, 1, 1), (normal(2, 4, 3, 3), normal(3, 3, 3, 4))),
    "3 x 3, by tiles": (lambda x, k: convolution(x, k, 1, 1), (normal(2, 16, 18, 96), normal(3, 3, 96, 176) / 30)),
    "3 x 3, odd, of their size": (
        lambda x, k: convolution(x, k, 1, 1),
        (normal(2, 13, 24, 96), normal(3, 3, 96, 176) / 30),
    ),
    "3 x 3, four pixels at once": (lambda x, k: convolution(x, k, 1, 1), (normal(2, 5, 8, 6), normal(3, 3, 6, 4))),
    "3 x 3, two pixels at once": (lambda x, k: convolution(x, k, 1, 1), (normal(2, 5, 4, 6), normal(3, 3, 6, 10))),
    "3 x 3, enlarged": (enlarged_convolution, (normal(2, 3, 4, 6), normal(3, 3, 6, 5))),
    "3 x 3, enlarged, one position": (enlarged_convolution, (normal(1, 1, 1, 4), normal(3, 3, 4, 5))),
    "3 x 3, enlarged, many outputs": (enlarged_convolution, (normal(1, 1, 2, 4), normal(3, 3, 4, 32))),
    "1 x 1": (lambda x, k: convolution(x, k, 1, 0), (normal(2, 2, 3, 4), normal(1, 1, 4, 16))),
    "group norm": (lambda x, s, b: group_norm(x, s, b, 3, 1e-5), (normal(2, 10, 12) + 3, normal(12), normal(12))),
    "group norm, 16": (lambda x, s, b: group_norm(x, s, b, 3, 1e-5), (normal(2, 16, 12) + 3, normal(12), normal(12))),
    "group norm, 9": (lambda x, s, b: group_norm(x, s, b, 2, 1e-5), (normal(1, 9, 8), normal(8), normal(8))),
    "layer norm": (lambda x, s, b: layer_norm(x, s, b, 1e-5), (normal(10, 12) + 3, normal(12), normal(12))),
    "silu": (silu, (jnp.linspace(-90, 90, 1001),)),
    "gated gelu": (gated_gelu, (normal(1001), jnp.linspace(-20, 20, 1001))),
    "attention": (dot_product_attention, (normal(2, 5, 3, 4), normal(2, 7, 3, 4), normal(2, 7, 3, 4))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cpu_computes_the_same(case: str) -> None:
    function, arguments = CASES[case]
    ours, theirs = (values_and_gradients(function, name, arguments) for name in ("cpu", PLAIN))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), ours, theirs)


def test_tiles_are_taken_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(convolutions, "_tiles_traced", lambda x, k: taken.append((x.shape, k.shape)))

    def convolve(*shapes: tuple[int, ...], dtype: Any = jnp.float32) -> None:
        with compiled_for("cpu"):
            convolution(*(jnp.zeros(shape, dtype) for shape in shapes), 1, 1)

    wide, kernel = (2, 16, 16, 192), (3, 3, 192, 192)
    convolve(wide, kernel)
    assert taken == [(wide, kernel)]
    convolve(wide, kernel, dtype=jnp.bfloat16)  # whose sums would lose more than its products
    convolve((2, 15, 18, 192), kernel)
    convolve((1, 8, 8, 192), kernel)  # transforming the kernel is most of it
    convolve((1, 64, 64, 12), (3, 3, 12, 192))  # and here the picture
    assert len(taken) == 1


def test_bfloat16_keeps_its_type() -> None:
    x, kernel = normal(2, 4, 4, 6).astype(jnp.bfloat16), normal(3, 3, 6, 64).astype(jnp.bfloat16)
    out, gradients = values_and_gradients(lambda x, k: convolution(x, k, 1, 1), "cpu", (x, kernel))
    rows, kernel_io = values_and_gradients(linear, "cpu", (x.reshape(-1, 6), kernel[0, 0]))[1]
    assert {out.dtype, *(g.dtype for g in gradients), rows.dtype, kernel_io.dtype} == {jnp.dtype(jnp.bfloat16)}


def test_a_parameter_of_another_shape_is_refused() -> None:
    dense = Dense(3)
    variables = dense.init(jax.random.key(0), jnp.ones((1, 4)))
    with pytest.raises(ScopeParamShapeError, match="kernel"):
        dense.apply(variables, jnp.ones((1, 5)))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(gelu, lambda x: jax.nn.gelu(x, approximate=False)), (quick_gelu, lambda x: x * jax.nn.sigmoid(1.702 * x))],
)
def test_gelu_is_the_exact_one(ours: Callable[..., jax.Array], theirs: Callable[..., jax.Array]) -> None:
    x = jnp.linspace(-6, 6, 101)
    both = (values_and_gradients(f, "cpu", (x,)) for f in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *both)


@pytest.mark.parametrize(
    ("layer", "x", "kernel", "turned"),
    [
        (linear, normal(3, 6), normal(6, 5), "5,6"),
        (lambda x, k: convolution(x, k, 1, 1), normal(2, 4, 4, 6), normal(3, 3, 6, 5), "3,3,5,6"),
        (enlarged_convolution, normal(2, 4, 4, 6), normal(3, 3, 6, 5), "4,4,5,6"),
    ],
)
def test_frozen_kernels_are_turned_once_for_a_loop(
    layer: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, turned: str
) -> None:
    def descended(x: jax.Array, kernel: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda x: jnp.square(layer(x, kernel)).sum())
        return jax.lax.scan(lambda x, _: (x - gradient(x), None), x, None, length=3)[0]

    text = jax.jit(descended).lower(x, kernel).compile().as_text()
    made = [m.start() for m in re.finditer(rf"^ +%\S+ = f32\[{turned}\]\S* (fusion|copy)\(", text, re.MULTILINE)]
    assert made and min(made) > text.index("ENTRY")


def test_frozen_kernels_cost_no_gradient() -> None:
    """XLA must drop the products for kernels that nothing asks about: a step freezes almost all of them."""
    x, kernel = normal(2, 4, 4, 6), normal(3, 3, 6, 64)

    def products(wanted: int) -> int:
        loss = lambda x, k: jnp.square(convolution(x, k, 1, 1)).sum()  # noqa: E731
        text = jax.jit(jax.grad(loss, argnums=wanted)).lower(x, kernel).compile().as_text()
        return text.count(" dot(")

    assert products(0) == 1 and products(1) == 1


@pytest.mark.parametrize("devices", [1, 2])
def test_a_tpu_attends_in_blocks_each_chip_to_its_own_rows(devices: int) -> None:
    """JAX's kernel, run by its interpreter of TPU programs; over two chips it must be told how to split."""
    mesh = make_mesh(devices=jax.devices()[:devices])
    arguments = tuple(normal(2, 1024, 1, 8) for _ in range(3))
    plain = values_and_gradients(dot_product_attention, "cpu", arguments)
    split = jax.device_put(arguments, NamedSharding(mesh, ROWS))
    with rows_over(mesh), pltpu.force_tpu_interpret_mode():
        in_blocks = values_and_gradients(dot_product_attention, "tpu", split)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), plain, in_blocks)


ONE = make_mesh(devices=jax.devices()[:1])
NORMS = {  # positions, channels, groups, and whether SiLU follows; of 64 values in a tile and at most 4 chunks
    "a tile each": (16, 64, 4, True),
    "tiles in part": (37, 30, 3, False),
    "some tiles each": (130, 32, 2, True),
    "chunks past the end": (300, 12, 3, False),
    "three chunks": (35, 12, 3, True),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_gpu_normalizes_in_kernels_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels, run by Pallas' interpreter; of values far from 0, whose squares would cancel."""
    monkeypatch.setattr(gpu_norm, "_TILE", 64)
    monkeypatch.setattr(gpu_norm, "_CHUNKS", 4)
    positions, channels, groups, activated = NORMS[name]
    arguments = (normal(2, positions, channels) + 40, normal(channels), normal(channels), normal(2, channels))
    norm = lambda x, scale, bias, shift: group_norm(x, scale, bias, groups, 1e-5, activated, shift)  # noqa: E731
    with rows_over(ONE):
        plain, kernel = (values_and_gradients(norm, platform, arguments) for platform in (PLAIN, "gpu"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), plain, kernel)


@pytest.mark.parametrize("devices", [1, 2])
def test_each_gpu_normalizes_its_own_rows(devices: int) -> None:
    mesh = make_mesh(devices=jax.devices()[:devices])
    x, scale, bias = normal(2, 16, 12), normal(12), normal(12)
    norm = lambda *a: group_norm(*a, 3, 1e-5, True)  # noqa: E731
    plain = values_and_gradients(norm, PLAIN, (x, scale, bias))
    split = jax.device_put(x, NamedSharding(mesh, ROWS))
    with rows_over(mesh):
        kernels = str(jax.make_jaxpr(compiled_for("gpu")(norm))(split, scale, bias)).count("pallas_call[")
        own = values_and_gradients(norm, "gpu", (split, scale, bias))
    assert kernels == 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), plain, own)


def test_a_gpu_keeps_bfloat16_between_its_layers() -> None:
    """What a kernel writes has its input's type, parameters may have another."""
    x = normal(2, 16, 12).astype(jnp.bfloat16)
    with compiled_for("gpu"), rows_over(ONE):
        out, pull = jax.vjp(lambda x, s: group_norm(x, s, s, 3, 1e-5, True), x, normal(12))
    of_x, of_scale = pull(jnp.ones_like(out))
    assert (out.dtype, of_x.dtype, of_scale.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    with compiled_for(PLAIN):
        plain = group_norm(x, normal(12), normal(12), 3, 1e-5)
    assert plain.dtype == jnp.float32


@pytest.mark.parametrize(
    ("positions", "keys", "width", "dtype", "kernel"),
    [
        (64, 64, 40, jnp.bfloat16, "cudnn"),
        (64, 77, 40, jnp.bfloat16, "cudnn"),  # made even
        (77, 77, 40, jnp.bfloat16, None),  # its gradient takes even lengths
        (16, 16, 40, jnp.bfloat16, None),
        (64, 64, 36, jnp.bfloat16, None),
        (64, 64, 512, jnp.bfloat16, None),
        (64, 64, 40, jnp.float32, None),
    ],
)
def test_a_gpu_attends_by_cudnn_where_that_fits(
    positions: int, keys: int, width: int, dtype: Any, kernel: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    library = jax.nn.dot_product_attention

    def attend(*arguments: jax.Array, implementation: str | None, **keywords: Any) -> jax.Array:
        asked.append(implementation)
        return library(*arguments, **keywords)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    q, context = normal(2, positions, 2, width).astype(dtype), normal(2, keys, 2, width).astype(dtype)
    with compiled_for("gpu"), rows_over(ONE):
        k = context if positions == keys else even(context)
        out = dot_product_attention(q, k, k, keys=keys)
    with compiled_for(PLAIN):
        plain = dot_product_attention(q, context, context)
    assert asked == [kernel, None]
    np.testing.assert_allclose(out.astype(jnp.float32), plain.astype(jnp.float32), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("dtype", "rows"), [(jnp.bfloat16, 78), (jnp.float32, 77)])
def test_texts_are_made_even_for_cudnn_alone(dtype: Any, rows: int) -> None:
    text = jnp.zeros((2, 77, 8), dtype)
    assert even(text).shape[1] == 77
    with compiled_for("gpu"):
        assert even(text).shape[1] == rows


def test_short_attention_and_unknown_placement_stay_the_librarys() -> None:
    def kernels(positions: int, over: Mesh | None) -> int:
        shapes = [jax.ShapeDtypeStruct((2, positions, 1, 8), jnp.float32)] * 3
        with compiled_for("tpu"), rows_over(over) if over else nullcontext():
            return str(jax.make_jaxpr(lambda *x: dot_product_attention(*x))(*shapes)).count("pallas_call")

    mesh = make_mesh(devices=jax.devices()[:2])
    assert (kernels(1024, mesh), kernels(1000, mesh), kernels(512, mesh)) == (1, 0, 0)
    assert jax.device_count() > 1 and kernels(1024, None) == 0
    assert kernels(1024, make_mesh(devices=jax.devices()[:4])) == 0  # two rows over four devices
