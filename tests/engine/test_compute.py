"""bfloat16 compute with float32 trainables, and rematerialization: the same lessons."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import values

from cns_jax.core.settings import build
from cns_jax.core.tree import flatten
from cns_jax.core.types import Batch, Trainable
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.step import StepSpec, denoising_loss
from cns_jax.neurons.score import cross_attention_kernels

pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")


def gradient(model: Path, folder: Path, compute: str, remat: bool) -> tuple[float, Trainable, Studio]:
    """Loss and gradient of one fixed batch."""
    settings = build(RunSettings, values(model, folder))
    studio = Studio.open(find_source(settings.address), ("<a>",), 5, 16, compute=compute, remat=remat)
    spec = StepSpec(studio.model, settings.method, studio.schedule, studio.mesh, 3, 1, 0.0)
    rng = np.random.default_rng(0)
    ids = studio.vocabulary.encode(["a photo of a <a> cat"] * 4)
    latents, noise = (jnp.asarray(rng.normal(size=(4, *studio.model.latent_shape(16, 16))), jnp.float32) for _ in "zn")
    batch = Batch(latents, jnp.asarray(ids), jnp.full(4, 0.25), noise, jnp.asarray([50, 300, 600, 900]))
    rows = jnp.asarray(rng.normal(size=(5, 32)) * 0.02, jnp.float32)
    trainable = Trainable(cross_attention_kernels(studio.params["unet"]), rows)

    @jax.jit
    def value(trainable: Trainable):
        return denoising_loss(spec, settings.method.applied(studio.params, None, trainable), batch)[0]

    loss, found = jax.value_and_grad(value)(trainable)
    return float(loss), found, studio


def test_remat_changes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    loss, plain, _ = gradient(tiny_folder, tmp_path, "float32", False)
    again, remat, studio = gradient(tiny_folder, tmp_path, "float32", True)
    assert studio.model.remat
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    for one, two in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6 * float(jnp.abs(one).max()))


def test_bfloat16_is_near_and_what_trains_is_float32(tiny_folder: Path, tmp_path: Path) -> None:
    loss, plain, _ = gradient(tiny_folder, tmp_path, "float32", False)
    near, half, studio = gradient(tiny_folder, tmp_path, "bfloat16", False)
    kernels = flatten(cross_attention_kernels(studio.params["unet"]))
    for name, leaf in flatten(studio.params["unet"]).items():
        assert leaf.dtype == (jnp.float32 if name in kernels else jnp.bfloat16), name
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half))
    assert abs(near - loss) < 0.02 * loss
    one, two = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (plain, half))
    cosine = float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    assert cosine > 0.99, cosine
    assert not np.array_equal(one, two)


def test_auto_is_float32_on_a_cpu(tiny_folder: Path, tmp_path: Path) -> None:
    settings = build(RunSettings, values(tiny_folder, tmp_path))
    studio = Studio.open(find_source(settings.address), (), 0, 16)
    assert studio.model == dataclasses.replace(studio.model, dtype=None)
    assert {leaf.dtype for leaf in jax.tree.leaves(studio.params)} == {jnp.dtype(jnp.float32)}
