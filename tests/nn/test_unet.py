"""The UNet with several texts for one of the latents, as guidance calls it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.xla.flops import flops
from cns_jax.nn.unet import UNet2DConditionModel, UNetConfig

WIDTH, ROWS = 24, 3


def unet(remat: bool = False, linear_projection: bool = False) -> UNet2DConditionModel:
    config = UNetConfig(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        use_linear_projection=linear_projection,
    )
    return UNet2DConditionModel(config, remat=remat)


def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    latents = jnp.asarray(rng.standard_normal((2, 8, 6, 4)), jnp.float32)
    return latents, jnp.asarray([1.0, 700.0]), jnp.asarray(rng.standard_normal((2 * ROWS, 5, WIDTH)), jnp.float32)


def initialized(module: UNet2DConditionModel) -> Any:
    latents, times, text = inputs()
    return module.init(jax.random.key(0), latents, times, text[:2])


@pytest.mark.parametrize("options", [{}, {"remat": True}, {"linear_projection": True}])
def test_texts_of_one_row_are_rows_of_their_own(options: dict[str, bool]) -> None:
    module = unet(**options)
    params, (latents, times, text) = initialized(module), inputs()
    shared = jax.jit(module.apply)(params, latents, times, text)
    repeated = jax.jit(module.apply)(params, jnp.repeat(latents, ROWS, 0), jnp.repeat(times, ROWS, 0), text)
    assert shared.shape == repeated.shape == (2 * ROWS, *latents.shape[1:])
    np.testing.assert_allclose(shared, repeated, rtol=1e-5, atol=1e-5)


def test_what_comes_before_the_text_is_computed_once() -> None:
    module = unet()
    params, (latents, times, text) = initialized(module), inputs()
    shared = flops(module.apply, params, latents, times, text)
    repeated = flops(module.apply, params, jnp.repeat(latents, ROWS, 0), jnp.repeat(times, ROWS, 0), text)
    once = flops(module.apply, params, latents, times, text[:2])
    assert once < shared < 0.95 * repeated


def test_gradients_of_hidden_states_are_added_as_matrices() -> None:
    """XLA moves a reshape between two sums by one sum in each of its passes over the whole program."""
    module = unet()
    params, (latents, times, text) = initialized(module), inputs()
    loss = lambda text: module.apply(params, latents, times, text, True).sum()  # noqa: E731
    sums = [e.outvars[0].aval.shape for e in jax.make_jaxpr(jax.grad(loss))(text).eqns if e.primitive.name == "add_any"]
    assert {shape for shape in sums if shape[-1] == WIDTH} == {(2 * ROWS * 5, WIDTH)}
    assert not [shape for shape in sums if len(shape) == 3]
