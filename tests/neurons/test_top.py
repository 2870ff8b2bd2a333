"""The top inputs of output units: what a CPU partitions and what other devices count are the definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.tree import flatten
from cns_jax.core.xla.platform import compiled_for
from cns_jax.neurons import top as module
from cns_jax.neurons.top import kept, top_inputs, top_of_all


def counted(scores_io: np.ndarray, ratio: float) -> jax.Array:
    return jax.jit(top_inputs, static_argnums=1)(jnp.asarray(scores_io), ratio)


def partitioned(scores_io: np.ndarray, ratio: float) -> np.ndarray:
    return module._highest(np.ascontiguousarray(scores_io.T), kept(len(scores_io), ratio)).T


BOTH = pytest.mark.parametrize("top", [counted, partitioned])


def by_sorting(scores_io: np.ndarray, keep: int) -> np.ndarray:
    """The definition, spelled out: stable order by falling score."""
    out = np.zeros(scores_io.shape, bool)
    for unit in range(scores_io.shape[1]):
        out[np.argsort(-scores_io[:, unit], kind="stable")[:keep], unit] = True
    return out


@pytest.mark.parametrize(
    ("inputs", "ratio", "keep"), [(768, 0.3, 230), (100, 0.29, 29), (10, 0.3, 3), (1024, 0.3, 307), (16, 0.99, 15)]
)
def test_floor_of_ratio_times_inputs_is_kept(inputs, ratio, keep):
    assert kept(inputs, ratio) == keep
    values = jnp.asarray(np.random.default_rng(0).random((inputs, 3)).astype(np.float32))
    assert (top_inputs(values, ratio).sum(axis=0) == keep).all()


def test_a_ratio_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match="0.05 of 16 inputs keeps none; raise it to at least 0.0625"):
        top_inputs(jnp.ones((16, 2)), 0.05)


@BOTH
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_definition_with_many_ties(seed, top):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, (40, 25)).astype(np.float32) * rng.choice([1e-30, 1e-3, 1e30])
    for ratio in (0.1, 0.3, 0.9):
        np.testing.assert_array_equal(top(values, ratio), by_sorting(values, kept(40, ratio)))


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition_on_scores(seed, top):
    values = np.abs(np.random.default_rng(seed).normal(size=(96, 64))).astype(np.float32)
    np.testing.assert_array_equal(top(values, 0.3), by_sorting(values, 28))


@BOTH
def test_ties_go_to_the_lower_index(top):
    assert top(np.zeros((5, 1), np.float32), 0.4)[:, 0].tolist() == [True, True, False, False, False]
    assert top(np.asarray([[1.0], [2.0], [1.0], [2.0], [1.0]], np.float32), 0.6)[:, 0].tolist() == [
        True,
        True,
        0,
        True,
        0,
    ]


@pytest.mark.parametrize("counts", [(2, 20), (9, 1), (2, 2)])
def test_a_cpu_selects_what_other_devices_select(kernels, norms, counts):
    tree, sets = kernels(3), [norms(seed, count) for seed, count in enumerate(counts)]
    here = top_of_all(tree, sets, 0.3)
    with compiled_for("gpu"):
        there = top_of_all(tree, sets, 0.3)
    assert len(here) == len(there) == 2
    assert any(leaf.any() for leaf in flatten(here[int(np.argmin(counts))]).values())
    for one, other in zip(here, there, strict=True):
        for name, leaf in flatten(one).items():
            np.testing.assert_array_equal(leaf, flatten(other)[name])


def test_numbers_of_captions_share_a_program(kernels, norms):
    tree = kernels(3)
    with compiled_for("gpu"):
        top_of_all(tree, [norms(1, 3)], 0.3)
        compiled = module._counted.jitted._cache_size()
        for captions in (4, 5, 8):
            top_of_all(tree, [norms(1, captions)], 0.3)
        assert module._counted.jitted._cache_size() == compiled
