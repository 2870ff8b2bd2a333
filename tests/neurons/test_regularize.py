from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cns_jax.core.tree import flatten
from cns_jax.neurons.regularize import continual_regularization, keep_selected, regularization_loss
from cns_jax.neurons.select import constant


def assert_trees_close(found, expected, rtol=1e-5) -> None:
    for name, leaf in flatten(expected).items():
        np.testing.assert_allclose(flatten(found)[name], leaf, rtol=rtol, atol=1e-6, err_msg=name)


def assert_unmoved(before, after, mask) -> None:
    """Bit-identical wherever the mask is False."""
    for name, m in flatten(mask).items():
        a, b = np.asarray(flatten(before)[name]), np.asarray(flatten(after)[name])
        assert (a.view(np.uint32) == b.view(np.uint32))[~np.asarray(m)].all(), name


def steps(transform, params, count=5, state=None):
    """Random gradients through the jitted transform."""
    state, rng = transform.init(params) if state is None else state, np.random.default_rng(0)

    @jax.jit
    def step(params, state, gradient):
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(count):
        gradient = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
        params, state = step(params, state, gradient)
    return params, state


def test_the_formula_by_hand():
    w, previous, base = (({"k": jnp.asarray([[v]])}) for v in (5.0, 3.0, 1.0))
    on, off = {"k": jnp.asarray([[True]])}, {"k": jnp.asarray([[False]])}
    assert regularization_loss(w, previous, base, on, 2.0, 0.5) == 2.0 * 4 + 0.5 * 16
    assert regularization_loss(w, previous, base, off, 2.0, 0.5) == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("lambda1", "lambda2"), [(3.0, 0.3), (100.0, 0.0), (0.0, 7.0)])
def test_the_transform_adds_the_gradient_of_the_formula(kernels, masks, seed, lambda1, lambda2):
    w, previous, base, gradient = (kernels(4 * seed + i) for i in range(4))
    mask = masks(seed)
    transform = continual_regularization(previous, base, mask, jnp.float32(lambda1), jnp.float32(lambda2))
    found, _ = transform.update(gradient, transform.init(w), w)
    penalty = jax.grad(regularization_loss)(w, previous, base, mask, lambda1, lambda2)
    assert_trees_close(found, jax.tree.map(jnp.add, gradient, penalty))
    halved = continual_regularization(previous, base, mask, lambda1 / 2, lambda2 / 2)
    with pytest.raises(AssertionError):  # the comparison sees a forgotten factor 2
        assert_trees_close(halved.update(gradient, halved.init(w), w)[0], jax.tree.map(jnp.add, gradient, penalty))


def test_traced_references_give_the_same(kernels, masks):
    w, previous, base, gradient, mask = kernels(0), kernels(1), kernels(2), kernels(3), masks(0)

    @jax.jit
    def inside(gradient, w, previous, base, mask, lambda1, lambda2):
        transform = continual_regularization(previous, base, mask, lambda1, lambda2)
        return transform.update(gradient, transform.init(w), w)[0]

    outside = continual_regularization(previous, base, mask, 5.0, 0.5)
    found = inside(gradient, w, previous, base, mask, 5.0, 0.5)
    assert_trees_close(found, outside.update(gradient, outside.init(w), w)[0])


def test_nothing_is_added_outside_the_mask_or_at_lambda_zero(kernels, masks):
    w, previous, base, gradient = (kernels(i) for i in range(4))
    for mask, lambda1 in ((constant(w, False), 1e3), (masks(0), 0.0)):
        transform = continual_regularization(previous, base, mask, lambda1, 0.0)
        found, _ = transform.update(gradient, transform.init(w), w)
        assert_unmoved(gradient, found, constant(w, False))


def test_it_asks_for_the_parameters(kernels):
    transform = continual_regularization(kernels(), kernels(), constant(kernels(), True), 1.0, 0.1)
    with pytest.raises(ValueError, match="needs params"):
        transform.update(kernels(), transform.init(kernels()))


def test_masked_last_nothing_outside_the_mask_moves(kernels, masks):
    """AdamW with decay, and moments left over from training without a mask: the worst that can come before."""
    before, mask = kernels(), masks(1)
    _, stale = steps(optax.adamw(0.1, weight_decay=0.1), before)
    transform = optax.chain(optax.adamw(0.1, weight_decay=0.1), keep_selected(mask))
    after, _ = steps(transform, before, state=(stale, optax.EmptyState()))
    assert_unmoved(before, after, mask)
    moved = [(a != b)[np.asarray(m)] for a, b, m in zip(*map(jax.tree.leaves, (before, after, mask)), strict=True)]
    assert all(leaf.all() for leaf in moved)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_masked_first_they_would_move(kernels, masks, decay):
    """The partner: in the wrong order, stale moments or weight decay move frozen weights, and the check sees it."""
    before, mask = kernels(), masks(1)
    _, stale = steps(optax.adamw(0.1, weight_decay=decay), before)
    transform = optax.chain(keep_selected(mask), optax.adamw(0.1, weight_decay=decay))
    after, _ = steps(transform, before, state=(optax.EmptyState(), stale))
    with pytest.raises(AssertionError):
        assert_unmoved(before, after, mask)


def test_a_nan_outside_the_mask_is_dropped(kernels, masks):
    transform, mask = keep_selected(masks(2)), masks(2)
    poisoned = jax.tree.map(lambda m: jnp.where(m, 1.0, jnp.nan), mask)
    found, _ = transform.update(poisoned, transform.init(poisoned))
    assert all((leaf == m).all() for leaf, m in zip(jax.tree.leaves(found), jax.tree.leaves(mask), strict=True))


def test_a_mask_of_rows_keeps_rows():
    transform = keep_selected(jnp.asarray([[False], [True], [False]]))
    found, _ = transform.update(jnp.ones((3, 4)), transform.init(jnp.ones((3, 4))))
    assert found.sum(axis=1).tolist() == [0, 4, 0]
