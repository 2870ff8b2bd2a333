"""The UNet against diffusers: forward, and the gradient of K/V kernels and of a token row, float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from errors import assert_parity
from safetensors.torch import save_file

from cns_jax.core.tree import flatten, overlay
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.nn.unet import UNet2DConditionModel, UNetConfig
from cns_jax.weights.layout import file_key, to_file
from cns_jax.weights.strict import load_file

diffusers = pytest.importorskip("diffusers")

CONFIGS = {
    "sd15": dict(
        block_out_channels=(32, 64, 64, 64), layers_per_block=2, norm_num_groups=16, cross_attention_dim=24,
        attention_head_dim=8,
    ),
    "sd21": dict(
        block_out_channels=(32, 64, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=24,
        attention_head_dim=[2, 4, 8], use_linear_projection=True,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ),
    "miniature": dict(
        block_out_channels=(32, 48), layers_per_block=1, norm_num_groups=16, cross_attention_dim=24,
        attention_head_dim=4, in_channels=16, out_channels=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    ),
    "deep": dict(
        block_out_channels=(32, 64), layers_per_block=[2, 1], norm_num_groups=16, cross_attention_dim=24,
        attention_head_dim=4, transformer_layers_per_block=2, flip_sin_to_cos=False, freq_shift=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ),
    "one level": dict(
        block_out_channels=(32,), layers_per_block=1, norm_num_groups=8, cross_attention_dim=24, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
    ),
}  # fmt: skip
SIZES = {"sd15": (8, 8), "sd21": (10, 6), "miniature": (8, 8), "deep": (7, 8), "one level": (8, 8)}


def build(name: str, folder):
    """(their model, our module, our params, inputs)."""
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(**CONFIGS[name])
    config = UNetConfig.from_dict(dict(theirs.config))
    ours = UNet2DConditionModel(config)
    file = folder / "unet.safetensors"
    save_file(theirs.state_dict(), file)
    h, w = SIZES[name]
    x = torch.randn(2, config.in_channels, h, w)
    t, text = torch.tensor([3, 700]), torch.randn(2, 7, 24)
    inputs = (jnp.asarray(x.numpy().transpose(0, 2, 3, 1)), jnp.asarray(t.numpy()), jnp.asarray(text.numpy()))
    target = jax.eval_shape(ours.init, jax.random.key(0), *inputs)["params"]
    return theirs, ours, load_file(file, target), (x, t, text), inputs


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_gradients(name: str, tmp_path) -> None:
    theirs, ours, params, (x, t, text), inputs = build(name, tmp_path)
    weight = torch.randn(2, theirs.config.out_channels, *SIZES[name])
    text.requires_grad_(True)
    out = theirs(x, t, text).sample
    (out * weight).sum().backward()

    def loss(kernels, context):
        predicted = ours.apply({"params": overlay(params, kernels)}, inputs[0], inputs[1], context)
        return (predicted * weight.numpy().transpose(0, 2, 3, 1)).sum(), predicted

    kernels = cross_attention_kernels(params)
    assert kernels, "no cross-attention kernels found"
    gradient, predicted = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(kernels, inputs[2])
    assert_parity(predicted, out.detach().numpy().transpose(0, 2, 3, 1), f"{name} forward")
    wanted = dict(theirs.named_parameters())
    for leaf, value in flatten(gradient[0]).items():
        assert_parity(to_file(leaf, np.asarray(value)), wanted[file_key(leaf)].grad.numpy(), f"{name} grad {leaf}")
    assert_parity(gradient[1], text.grad.numpy(), f"{name} grad of the text")


def test_begin_token_gets_no_gradient(tmp_path) -> None:
    """detach_begin leaves the forward pass alone and cuts position 0 off, as in Custom Diffusion."""
    _, ours, params, _, inputs = build("one level", tmp_path)

    def loss(context, detach):
        return jnp.square(ours.apply({"params": params}, inputs[0], inputs[1], context, detach)).sum()

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (value, plain), (same, cut) = both(inputs[2], False), both(inputs[2], True)
    np.testing.assert_allclose(same, value, rtol=1e-6)
    assert np.abs(plain[:, 0]).max() > 0
    assert np.abs(cut[:, 0]).max() == 0
    assert np.abs(cut[:, 1:]).max() > 0
