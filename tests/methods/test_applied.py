"""Low-rank additions, and their mix by the prompt, against the same weights merged by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixing import of_the_concepts

from cns_jax.core.tree import flatten, like
from cns_jax.methods.applied import Applied
from cns_jax.neurons.score import cross_attention_kernels

SETS, RANK, ROWS = 2, 3, 4


@pytest.fixture(scope="module")
def world(tiny_pipeline: Any) -> Any:
    """A model, its parameters, low-rank sets, and noisy latents."""
    rng = np.random.default_rng(0)
    kernels = flatten(cross_attention_kernels(tiny_pipeline.params["unet"]))
    low_rank = {
        name.removesuffix(".kernel"): (
            jnp.asarray(0.3 * rng.normal(size=(SETS, w.shape[0], RANK)), jnp.float32),
            jnp.asarray(0.3 * rng.normal(size=(SETS, RANK, w.shape[1])), jnp.float32),
        )
        for name, w in kernels.items()
    }
    rows_rd = jnp.asarray(rng.normal(size=(ROWS, 32)), jnp.float32)
    latents = jnp.asarray(rng.normal(size=(3, *tiny_pipeline.model.latent_shape(16, 16))), jnp.float32)
    return tiny_pipeline.model, tiny_pipeline.params, low_rank, rows_rd, latents


def predicted(model: Any, applied: Applied, ids: jax.Array, latents: jax.Array) -> np.ndarray:
    text = applied.conditioning(applied.encode(model, ids), ids)
    return np.asarray(applied.predict(model, latents, jnp.full(len(latents), 7), text))


def merged(params: Any, low_rank: Any, shares: np.ndarray) -> Any:
    """The parameters with the sets added in these shares."""
    kernels = cross_attention_kernels(params["unet"])
    flat = {
        name: w + sum(share * np.asarray(low_rank[name.removesuffix(".kernel")][0][s] @ low_rank[name.removesuffix(
            ".kernel")][1][s]) for s, share in enumerate(shares))
        for name, w in flatten(kernels).items()
    }  # fmt: skip
    return like(flat, kernels)


def test_without_a_mix_every_set_is_added(world) -> None:
    model, params, low_rank, rows_rd, latents = world
    ids = jnp.asarray([[1, 2, 3, 4]] * 3)
    found = predicted(model, Applied(params, rows_rd, low_rank), ids, latents)
    by_hand = Applied(params, rows_rd).with_unet(merged(params, low_rank, np.ones(SETS)))
    np.testing.assert_allclose(found, predicted(model, by_hand, ids, latents), atol=2e-5)
    assert np.abs(found - predicted(model, Applied(params, rows_rd), ids, latents)).max() > 0.01


def test_each_prompt_of_a_batch_has_its_own_mix(world) -> None:
    """No concept: the base model; the second concept: its set; both: half of each."""
    model, params, low_rank, rows_rd, latents = world
    first = model.text_encoder.vocab_size
    ids = jnp.asarray([[1, 2, 3, 4], [1, first + 1, 3, 4], [1, first, first + 1, 4]])
    rows_sd = rows_rd[:SETS]
    applied = Applied(params, rows_rd, low_rank, (jnp.int32(first), rows_sd), of_the_concepts)
    found = jax.jit(lambda a: predicted_traced(model, a, ids, latents))(applied)
    for row, shares in enumerate([np.zeros(2), np.array([0, 1]), np.array([0.5, 0.5])]):
        by_hand = Applied(params, rows_rd).with_unet(merged(params, low_rank, shares))
        np.testing.assert_allclose(found[row], predicted(model, by_hand, ids, latents)[row], atol=2e-5)


def predicted_traced(model: Any, applied: Applied, ids: jax.Array, latents: jax.Array) -> jax.Array:
    text = applied.conditioning(applied.encode(model, ids), ids)
    assert text.shape[-1] == 32 + SETS
    return applied.predict(model, latents, jnp.full(len(latents), 7), text)
