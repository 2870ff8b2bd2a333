"""The proximal step against dense references and jax.grad."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.protect.moments import Protected, second_moment
from cns_jax.protect.proximal import Pull, held_share, pull_of, pull_shapes, pulled

RNG = np.random.default_rng(5)
WIDTH = 12
KERNELS = {"attn": {"to_k": RNG.normal(size=(WIDTH, 7)), "to_v": RNG.normal(size=(WIDTH, 5))}}
FLAT = {"attn.to_k": KERNELS["attn"]["to_k"], "attn.to_v": KERNELS["attn"]["to_v"]}
OLD, GENERAL = RNG.normal(size=(2, 3, WIDTH)), RNG.normal(size=(5, 3, WIDTH))


def held() -> Protected:
    """Two groups that are held to different kernels."""
    later = {name: kernel + 0.3 * RNG.normal(size=kernel.shape) for name, kernel in FLAT.items()}
    return Protected.of(second_moment(GENERAL), FLAT, 0.75) + Protected.of(second_moment(OLD), later)


def like_kernels(scale: float) -> dict:
    return jax.tree.map(lambda w: jnp.asarray(scale * RNG.normal(size=w.shape), jnp.float32), KERNELS)


@pytest.mark.parametrize("strength", [0.01, 1.0, 300.0])
def test_a_step_is_the_dense_solution(strength: float) -> None:
    protected, kernels, updates = held(), like_kernels(1.0), like_kernels(0.1)
    after = pulled(pull_of(protected, strength, WIDTH, KERNELS), updates, kernels)
    inverse = np.linalg.inv(np.eye(WIDTH) + strength * protected.moment_dd)
    for leaf in ("to_k", "to_v"):
        w, u = (np.asarray(tree["attn"][leaf], np.float64) for tree in (kernels, updates))
        dense = inverse @ (w + u + strength * protected.outputs[f"attn.{leaf}"])
        np.testing.assert_allclose(w + np.asarray(after["attn"][leaf]), dense, atol=3e-6)


def test_where_a_step_ends_the_gradient_of_its_problem_is_0() -> None:
    """By jax.grad of 1/2 ||V - (W + U)||^2 + strength / 2 sum_g w_g ||X_g (V - W_g)||^2 / n_g."""
    strength, later = 2.0, {name: kernel + 1.0 for name, kernel in FLAT.items()}
    protected = Protected.of(second_moment(GENERAL), FLAT, 0.75) + Protected.of(second_moment(OLD), later)
    kernels, updates = like_kernels(1.0), like_kernels(0.1)
    after = pulled(pull_of(protected, strength, WIDTH, KERNELS), updates, kernels)
    general_nd, old_nd = (jnp.asarray(x.reshape(-1, WIDTH), jnp.float32) for x in (GENERAL, OLD))

    def problem(v: jax.Array, name: str, start: jax.Array) -> jax.Array:
        kept = jnp.square(general_nd @ (v - FLAT[name])).sum() / len(general_nd)
        taught = jnp.square(old_nd @ (v - later[name])).sum() / len(old_nd)
        return 0.5 * jnp.square(v - start).sum() + strength / 2 * (0.75 * kept + taught)

    for leaf in ("to_k", "to_v"):
        start = kernels["attn"][leaf] + updates["attn"][leaf]
        at = kernels["attn"][leaf] + after["attn"][leaf]
        slope = jax.grad(problem)(at, f"attn.{leaf}", start)
        before = jax.grad(problem)(start, f"attn.{leaf}", start)
        assert float(jnp.abs(slope).max()) < 1e-5 < 0.1 < float(jnp.abs(before).max())


def test_held_fast_protected_outputs_stay() -> None:
    """The limit of a great strength projects the update: x W stays to 1e-6 for protected x, and only for those."""
    kernels = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), KERNELS)
    protected = Protected.of(second_moment(OLD), FLAT)
    updates = like_kernels(0.1)
    after = pulled(pull_of(protected, 1e9, 6, KERNELS), updates, kernels)
    old_nd = OLD.reshape(-1, WIDTH)
    for leaf in ("to_k", "to_v"):
        change = np.asarray(after["attn"][leaf], np.float64)
        assert np.abs(old_nd @ change).max() < 1e-6 * np.abs(old_nd @ KERNELS["attn"][leaf]).max()
        assert np.linalg.norm(change) > 0.3 * np.linalg.norm(updates["attn"][leaf])


def test_a_free_direction_learns_as_without() -> None:
    directions = np.linalg.eigh(second_moment(OLD))[1]  # six of twelve hold nothing
    pull, updates = pull_of(Protected.of(second_moment(OLD), FLAT), 10.0, WIDTH, KERNELS), like_kernels(0.1)
    kernels = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), KERNELS)
    after = pulled(pull, updates, kernels)["attn"]["to_k"]
    free = directions[:, :6].T
    np.testing.assert_allclose(free @ np.asarray(after), free @ np.asarray(updates["attn"]["to_k"]), atol=1e-5)


def test_nothing_is_drawn_where_all_is_as_it_was() -> None:
    kernels = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), KERNELS)
    nothing = jax.tree.map(jnp.zeros_like, kernels)
    after = pulled(pull_of(Protected.of(second_moment(OLD), FLAT), 5.0, WIDTH, KERNELS), nothing, kernels)
    assert all(float(jnp.abs(leaf).max()) < 2e-6 for leaf in jax.tree.leaves(after))


def test_fewer_directions_hold_the_strongest() -> None:
    protected = held()
    values = np.linalg.eigvalsh(protected.moment_dd)[::-1]
    assert held_share(protected, 3) == pytest.approx(values[:3].sum() / values.sum())
    assert held_share(protected, 99) == pytest.approx(1.0)
    pull = pull_of(protected, 2.0, 3, KERNELS)
    shrunk = np.linalg.norm(pull.shrink_kd, axis=1)
    np.testing.assert_allclose(shrunk, 2 * values[:3] / (1 + 2 * values[:3]), rtol=1e-5)


@pytest.mark.parametrize("directions", [7, 10])
def test_one_product_is_the_two(directions: int) -> None:
    """Of more than half of all directions, too, only the strongest hold."""
    protected, kernels, updates = held(), like_kernels(1.0), like_kernels(0.1)
    pull = pull_of(protected, 2.0, directions, KERNELS)
    after = pulled(pull, updates, kernels)
    values, vectors = np.linalg.eigh(protected.moment_dd)
    basis = vectors[:, -directions:]
    shrink = (2 / (1 + 2 * values[-directions:]))[:, None] * basis.T
    assert pull.basis_dk is None
    for leaf in ("to_k", "to_v"):
        w, u = (np.asarray(tree["attn"][leaf], np.float64) for tree in (kernels, updates))
        away = basis @ (shrink @ (protected.moment_dd @ (w + u) - protected.outputs[f"attn.{leaf}"]))
        np.testing.assert_allclose(after["attn"][leaf], u - away, atol=3e-6)


@pytest.mark.parametrize("directions", [3, WIDTH, 400])
def test_shapes(directions: int) -> None:
    pull, shapes = pull_of(held(), 1.0, directions, KERNELS), pull_shapes(KERNELS, directions)
    assert isinstance(shapes, Pull)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), pull) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)
