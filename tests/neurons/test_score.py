from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.tree import count, flatten
from cns_jax.neurons.score import cross_attention_kernels, feature_norms, scores
from cns_jax.neurons.top import top_inputs
from cns_jax.nn.unet import UNet2DConditionModel, UNetConfig


def test_norms_count_only_the_positions_of_the_mask():
    hidden = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    mask = np.array([[0, 1, 1, 0, 0], [0, 1, 1, 1, 1]], bool)
    expected = [np.linalg.norm(h[m], axis=0) for h, m in zip(hidden, mask, strict=True)]
    np.testing.assert_allclose(feature_norms(jnp.asarray(hidden), jnp.asarray(mask)), expected, rtol=1e-6)


def test_norms_are_summed_in_float32():
    hidden = jnp.full((1, 64, 2), 1.0078125, jnp.bfloat16)
    found = feature_norms(hidden, jnp.ones((1, 64), bool))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 8 * 1.0078125, rtol=1e-6)


def test_a_score_is_magnitude_times_norm_of_the_input():
    kernel = jnp.asarray([[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0]])
    np.testing.assert_allclose(scores(kernel, jnp.asarray([2.0, 1.0, 10.0])), [[2, 4], [3, 0.5], [10, 40]])


def test_the_prompt_changes_the_mask(norms):
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32))
    first, second = (top_inputs(scores(kernel, n), 0.3) for n in norms(2, 2))
    assert (first != second).any()


def test_compared_along_the_other_axis_the_prompt_would_cancel(norms):
    """The partner of the test above: the mistake it would catch does make the masks equal."""
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32))
    first, second = (top_inputs(scores(kernel, n).T, 0.5) for n in norms(2, 2))
    assert (first == second).all()


def test_exactly_the_cross_attention_keys_and_values_of_stable_diffusion_are_trainable():
    config = UNetConfig(cross_attention_dim=768)  # SD-1.5
    inputs = jnp.zeros((1, 8, 8, 4)), jnp.zeros(1, jnp.int32), jnp.zeros((1, 4, 768))
    unet = jax.eval_shape(UNet2DConditionModel(config).init, jax.random.key(0), *inputs)["params"]
    kernels = cross_attention_kernels(unet)
    names = flatten(kernels)
    assert len(names) == 32 and all(leaf.shape[0] == 768 for leaf in names.values())
    assert all(name.endswith(("attn2.to_k.kernel", "attn2.to_v.kernel")) for name in names)
    assert count(kernels) == 19_169_280 and count(unet) == 859_520_964


@pytest.mark.parametrize("seed", range(3))
def test_scaling_all_norms_changes_nothing(seed, norms):
    kernel = jnp.asarray(np.random.default_rng(seed).normal(size=(16, 8)).astype(np.float32))
    n = norms(seed, 1)[0]
    assert (top_inputs(scores(kernel, n), 0.3) == top_inputs(scores(kernel, 4 * n), 0.3)).all()
