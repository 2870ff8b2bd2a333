"""Steps as one program, as a GPU or TPU runs them, are the steps that a CPU runs one by one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from first_steps import beginning

from benchmarks.aot.reading import collectives
from cns_jax.core.mesh import make_mesh, replicate
from cns_jax.core.types import Frozen
from cns_jax.engine.teach.step import (
    denoising_loss,
    draw,
    step_shapes,
    train_steps,
)
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.protect.proximal import pull_shapes

pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")
FALLING = dict(steps=6, decay_steps=4)


def test_one_call_takes_as_many_steps_as_calls_of_one(tiny_folder: Path, tmp_path: Path) -> None:
    spec, begun, frozen, data = beginning(tiny_folder, tmp_path, **FALLING)
    state, rows = jax.tree.map(jnp.copy, begun), []
    for _ in range(3):
        state, logs = train_steps(spec, 1, state, frozen, data, jax.random.key(1))
        rows.append(logs)
    other, means = train_steps(spec, 3, jax.tree.map(jnp.copy, begun), frozen, data, jax.random.key(1))
    assert int(state.step) == int(other.step) == 3
    of_rows = jax.tree.map(lambda *values: sum(values) / 3, *rows)
    ends = (state.trainable, of_rows), (other.trainable, means)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), *ends)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), other.trainable, begun.trainable)
    assert any(jax.tree.leaves(moved))


def test_rates_fall_to_zero_over_the_last_steps(tiny_folder: Path, tmp_path: Path) -> None:
    moved = {}
    for decay, of_spec in ((0, {}), (4, FALLING)):
        spec, state, frozen, data = beginning(tiny_folder, tmp_path, **of_spec)
        moved[decay] = []
        for _ in range(6):
            before = jax.tree.map(jnp.copy, state.trainable)
            state, _ = train_steps(spec, 1, state, frozen, data, jax.random.key(1))
            changes = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.trainable, before)
            moved[decay].append(max(float(x) for x in jax.tree.leaves(changes)))
    constant, falling = moved[0], moved[4]
    np.testing.assert_allclose(falling[:3], constant[:3], rtol=1e-5)  # steps 0 and 1, and the first of the last four
    assert falling[5] < 0.5 * constant[5] and falling[4] < constant[4]


@pytest.mark.parametrize("fsdp", [1, 2, 4])
def test_devices_exchange_weights_and_gradients_only(tiny_folder: Path, tmp_path: Path, fsdp: int) -> None:
    """Each of four devices takes its own image; where they share the weights, it gathers them and nothing else."""
    ends = []
    for size in (1, fsdp):
        spec, state, frozen, data = beginning(tiny_folder, tmp_path, size)
        arguments = replicate(spec.mesh, (state, frozen.plan, data, jax.random.key(1)))
        state, plan, data, key = arguments
        ends.append(train_steps(spec, 1, state, Frozen(frozen.base, plan), data, key))
    shapes = step_shapes(spec, frozen.base, spec.method.empty(frozen.base, 5, 32), data)
    exchanged = collectives(train_steps.jitted.lower(spec, 1, *shapes).compile().as_text())
    trained = sum(leaf.nbytes for leaf in jax.tree.leaves(ends[0][0].trainable))
    assert set(exchanged) == ({"all-reduce"} if fsdp == 1 else {"all-gather", "all-reduce"})
    assert trained <= exchanged["all-reduce"]["bytes"] < 1.01 * trained
    for a, b in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


def test_protected_steps_on_two_devices_are_those_on_one(tiny_folder: Path, tmp_path: Path) -> None:
    """The pull moves weights, the same wherever they lie, and devices exchange nothing for it."""
    ends = {}
    for count in (1, 2):
        spec, state, frozen, data = beginning(tiny_folder, tmp_path, 1, "protected")
        spec = dataclasses.replace(spec, mesh=make_mesh(1, jax.devices()[:count]))
        state, frozen, data, key = replicate(spec.mesh, (state, frozen, data, jax.random.key(1)))
        copied = jax.tree.map(jnp.copy, state)
        ends[count] = train_steps(spec, 2, copied, frozen, data, key)
    free = train_steps(spec, 2, state, frozen._replace(pull=jax.tree.map(jnp.zeros_like, frozen.pull)), data, key)
    for a, b in zip(jax.tree.leaves(ends[1]), jax.tree.leaves(ends[2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    shapes = step_shapes(spec, frozen.base, spec.method.empty(frozen.base, 5, 32), data, frozen.pull)
    exchanged = collectives(train_steps.jitted.lower(spec, 2, *shapes).compile().as_text())
    trained = sum(leaf.nbytes for leaf in jax.tree.leaves(ends[2][0].trainable))
    assert set(exchanged) == {"all-reduce"} and trained <= exchanged["all-reduce"]["bytes"] < 1.01 * trained
    pulled = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ends[2][0].trainable, free[0].trainable)
    assert min(jax.tree.leaves(pulled.kernels)) > 1e-4


def test_protection_adds_nothing_to_exchange(tiny_folder: Path, tmp_path: Path) -> None:
    """Every device pulls its own copy of the kernels."""
    spec, _, frozen, data = beginning(tiny_folder, tmp_path, fsdp=4)
    pull = pull_shapes(cross_attention_kernels(frozen.base["unet"]), 8)
    exchanged = []
    for one in (None, pull):
        shapes = step_shapes(spec, frozen.base, spec.method.empty(frozen.base, 5, 32), data, one)
        exchanged.append(collectives(train_steps.jitted.lower(spec, 1, *shapes).compile().as_text()))
    assert exchanged[0] == exchanged[1] and "all-reduce" in exchanged[0]


def test_steps_compiled_ahead_are_the_steps_that_run(tiny_folder: Path, tmp_path: Path, compiled: list[str]) -> None:
    spec, state, frozen, data = beginning(tiny_folder, tmp_path, steps=8)
    memory = spec.method.empty(frozen.base, 5, 32)
    placed = replicate(spec.mesh, (state, frozen.plan, data, jax.random.key(1)))
    train_steps.ahead(spec, 2, *step_shapes(spec, frozen.base, memory, data))
    state, plan, data, key = placed
    train_steps(spec, 2, state, Frozen(frozen.base, plan), data, key)
    assert len([name for name in compiled if "step" in name]) == 1


def test_a_mask_of_ones_is_no_mask(tiny_folder: Path, tmp_path: Path) -> None:
    spec, state, frozen, data = beginning(tiny_folder, tmp_path, **FALLING)
    key, ends = jax.random.key(1), []
    for mask in (None, jnp.ones(data.moments_vhwc.shape[:3])):
        begun = jax.tree.map(jnp.copy, state)
        ends.append(train_steps(spec, 1, begun, frozen, data._replace(mask_vhw=mask), key))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), *ends)


class Silent:
    """In a model's place: predicts zeros, so that the noise counts as what is to be predicted alone."""

    def encode_text(self, *_: object) -> None: ...

    def predict_noise(self, _: object, latents_bhwc: jax.Array, *__: object) -> jax.Array:
        return jnp.zeros_like(latents_bhwc)


def test_what_a_mask_hides_has_no_gradient(tiny_folder: Path, tmp_path: Path) -> None:
    """In the concept's images; prior images have no masks."""
    spec, state, frozen, data = beginning(tiny_folder, tmp_path)
    half = jnp.ones(data.moments_vhwc.shape[:3]).at[:, :, 2:].set(0)
    batch = draw(spec, jax.random.key(1), jnp.asarray(0), data._replace(mask_vhw=half))
    silent = dataclasses.replace(spec, model=Silent())
    applied = spec.method.applied(frozen.base, frozen.plan, state.trainable)

    def loss(noise: jax.Array) -> jax.Array:
        return denoising_loss(silent, applied, batch._replace(noise_bhwc=noise))[0]

    moved = np.asarray(jax.grad(loss)(batch.noise_bhwc) != 0).all(-1)  # (b, h, w)
    assert moved[: spec.batch, :, :2].all() and moved[spec.batch :].all()
    assert not moved[: spec.batch, :, 2:].any()
    whole = batch._replace(mask_bhw=None)
    shown = denoising_loss(silent, applied, whole)[1]["concept_loss"]
    seen = denoising_loss(silent, applied, batch)[1]["concept_loss"]
    assert 0 < seen < shown
