"""What holds of a training step of every method; a new method is tested by being in METHODS."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from first_steps import beginning
from jax.errors import KeyReuseError

from cns_jax.core.mesh import replicate
from cns_jax.core.tree import flatten
from cns_jax.engine.teach.step import draw, method_loss, one_step, train_steps
from cns_jax.methods import METHODS
from cns_jax.protect.proximal import pulled

pytestmark = pytest.mark.filterwarnings("ignore::cns_jax.text.vocabulary.TruncatedPromptWarning")
GOLDEN = Path(__file__).parents[1] / "cases" / "golden_steps.json"
methods = pytest.mark.parametrize("name", METHODS)


def named(trainable: Any) -> dict[str, Any]:
    """Leaves by their names, without the "_rd" that tells the axes of rows."""
    return {name.removesuffix("_rd"): leaf for name, leaf in flatten(trainable._asdict()).items()}


@methods
def test_a_step_is_the_one_that_was_stored(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Loss, and what the first step changed of each leaf. CNS_JAX_STORE_GOLDEN=1 stores today's, which is right only
    where a change of results is meant."""
    spec, state, frozen, data = beginning(tiny_folder, tmp_path, method_name=name)
    before = jax.tree.map(np.asarray, state.trainable)
    after, logs = train_steps(spec, 1, state, frozen, data, jax.random.key(1))
    found = {"loss": float(logs["loss"]), "l_reg": float(logs["l_reg"])}
    leaves = named(before)
    for leaf, now in named(after.trainable).items():
        change = np.asarray(now, np.float64) - leaves[leaf]
        found[leaf] = [float(np.linalg.norm(change)), int(np.count_nonzero(change))]
    if os.environ.get("CNS_JAX_STORE_GOLDEN") == "1":
        stored = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps({**stored, name: found}, indent=1, sort_keys=True) + "\n")
    wanted = json.loads(GOLDEN.read_text())[name]
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-3, err_msg=key)


@methods
def test_no_random_key_is_used_twice(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    spec, state, frozen, data = beginning(tiny_folder, tmp_path, method_name=name)

    def twice(key: jax.Array) -> jax.Array:
        return jax.random.normal(key) + jax.random.uniform(key)

    with jax.debug_key_reuse(True):
        with pytest.raises(KeyReuseError):  # the check sees what it should
            jax.jit(twice).trace(jax.random.key(1))
        jax.jit(partial(one_step, spec)).trace(state, frozen, data, jax.random.key(1))


@methods
def test_no_dtype_is_promoted_unasked(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    """An array of one dtype that meets another would make all that follows of that one. optax's own code promotes."""
    spec, state, frozen, data = beginning(tiny_folder, tmp_path, method_name=name)

    def differentiated(trainable: Any, key: jax.Array) -> Any:
        batch = draw(spec, key, state.step, data)
        loss = lambda t: method_loss(spec, frozen.base, frozen.plan, t, batch, key)  # noqa: E731
        gradient = jax.grad(loss, has_aux=True)(trainable)
        kernels = pulled(frozen.pull, trainable.kernels, trainable.kernels) if frozen.pull else None
        return gradient, kernels, spec.method.penalty(frozen.plan, trainable)

    with jax.numpy_dtype_promotion("strict"):
        jax.make_jaxpr(differentiated)(state.trainable, jax.random.key(1))


@methods
def test_a_step_moves_nothing_between_host_and_device(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    spec, state, frozen, data = beginning(tiny_folder, tmp_path, method_name=name)
    arguments = replicate(spec.mesh, (state, frozen, data, jax.random.key(1)))
    jax.block_until_ready(train_steps(spec, 1, jax.tree.map(jnp.copy, arguments[0]), *arguments[1:]))
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(train_steps(spec, 1, *arguments))
        with pytest.raises(Exception, match="[Dd]isallowed"):
            jax.block_until_ready(arguments[2].views + np.ones(3, np.int32))  # the guard sees what it should


@methods
def test_a_lesson_starts_from_the_model_as_it_is(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Before its first step a lesson samples what was sampled before it."""
    spec, state, frozen, _ = beginning(tiny_folder, tmp_path, method_name=name)
    applied = spec.method.applied(frozen.base, frozen.plan, state.trainable)
    jax.tree.map(np.testing.assert_array_equal, applied.unet, dict(frozen.base["unet"]))
