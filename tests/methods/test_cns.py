"""Laws of CNS that need no UNet: selection, optimizer, ablations and memory, on a few small kernels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import assert_same, assert_unmoved, moved

from cns_jax.core.tree import flatten
from cns_jax.core.types import Trainable
from cns_jax.engine.checkpoint import Checkpoints
from cns_jax.methods.base import Task
from cns_jax.methods.cns import CNS
from cns_jax.neurons.regularize import regularization_loss
from cns_jax.neurons.select import constant, count, union

ROWS, WIDTH = 3, 16
FAST = CNS(lambda1=2.0, lambda2=0.2, lr_neurons=1e-2, lr_token=1e-1)


@pytest.fixture
def base():
    rng = np.random.default_rng(0)
    kernel = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(np.float32))  # noqa: E731
    attention = lambda out: {  # noqa: E731
        "to_q": {"kernel": kernel(out, out)},
        "to_k": {"kernel": kernel(WIDTH, out)},
        "to_v": {"kernel": kernel(WIDTH, out)},
    }
    block = {"attn1": attention(8), "attn2": attention(8)}
    return {"unet": {"down_blocks.0": block, "mid_block": {"attn2": attention(12)}}}


def task(row: int, seed: int, captions: int = 2) -> Task:
    rng = np.random.default_rng(seed)
    hidden = lambda b: jnp.asarray(rng.normal(size=(b, 5, WIDTH)).astype(np.float32))  # noqa: E731
    mask = lambda b: jnp.ones((b, 5), bool)  # noqa: E731
    own = hidden(1) + 0.3 * hidden(captions)
    rng = np.random.default_rng(1000)
    return Task(own, mask(captions), hidden(4), mask(4), row, jnp.full(WIDTH, 0.5 + seed))


@partial(jax.jit, static_argnames="method")
def step(method, trainable, opt_state, plan, gradient):
    updates, opt_state = method.optimizer(plan).update(gradient, opt_state, trainable)
    return optax.apply_updates(trainable, updates), opt_state


def train(method, trainable, plan, count=5, seed=0, opt_state=None):
    """Random gradients through the method's optimizer."""
    opt_state = method.optimizer(plan).init(trainable) if opt_state is None else opt_state
    rng = np.random.default_rng(seed)
    for _ in range(count):
        gradient = jax.tree.map(lambda w: rng.normal(size=w.shape).astype(np.float32), trainable)
        trainable, opt_state = step(method, trainable, opt_state, plan, gradient)
    return trainable, opt_state


def lesson(method, base, memory, row, seed):
    trainable, plan, _ = method.begin(jax.random.key(seed), base, memory, task(row, seed))
    trained, opt_state = train(method, trainable, plan, seed=seed)
    return trainable, plan, trained, opt_state


def test_a_concept_starts_as_the_merged_past(base):
    memory = FAST.empty(base, ROWS, WIDTH)
    for row in range(ROWS):
        trainable, plan, trained, _ = lesson(FAST, base, memory, row, row)
        before = FAST.sampled(base, memory)
        assert_same(FAST.applied(base, plan, trainable).unet, before.unet)
        others = np.arange(ROWS) != row
        assert_same(np.asarray(trainable.rows_rd)[others], np.asarray(before.rows_rd)[others])
        assert (trainable.rows_rd[row] == 0.5 + row).all()
        memory = FAST.commit(memory, plan, trained)
        after = FAST.sampled(base, memory)
        assert_same(FAST.applied(base, plan, trained).unet, after.unet)
        assert_same(after.rows_rd, trained.rows_rd)


def test_what_trains_is_a_copy(base):
    """The step donates the trainable; neither memory, plan nor base may lose a buffer by it."""
    memory = FAST.empty(base, ROWS, WIDTH)
    trainable, plan, _ = FAST.begin(jax.random.key(0), base, memory, task(0, 0))
    kept = {id(leaf): leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((base, memory, plan))}
    mine = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(trainable)}
    assert not mine & set(kept.values())


def test_memory_keeps_its_shapes_and_grows_by_the_mask(base):
    memory, shapes = FAST.empty(base, ROWS, WIDTH), None
    for row in range(ROWS):
        now = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), memory)
        assert shapes in (None, now)
        shapes, before = now, memory
        _, plan, trained, _ = lesson(FAST, base, memory, row, row)
        memory = FAST.commit(memory, plan, trained)
        assert_same(memory.union, union(before.union, plan.mask))
        assert count(memory.union) > count(before.union)


def test_masks_of_the_base_do_not_depend_on_the_order_of_concepts(base):
    current = replace(FAST, scored="current")
    fresh = FAST.empty(base, ROWS, WIDTH)
    _, plan, trained, _ = lesson(replace(FAST, lr_neurons=1.0), base, fresh, 0, 0)
    taught = FAST.commit(fresh, plan, trained)
    masks = {
        name: [method.begin(jax.random.key(0), base, memory, task(1, 1))[1].mask for memory in (fresh, taught)]
        for name, method in (("base", FAST), ("current", current))
    }
    assert_same(*masks["base"])
    assert_same(masks["base"][0], masks["current"][0])
    with pytest.raises(AssertionError):
        assert_same(*masks["current"])


def test_the_order_of_the_chain_withstands_stale_moments(base):
    """An optimizer state from another concept, moments everywhere: still nothing outside the mask moves."""
    memory = FAST.empty(base, ROWS, WIDTH)
    _, plan, trained, stale = lesson(FAST, base, memory, 0, 0)
    memory = FAST.commit(memory, plan, trained)
    trainable, plan, _ = FAST.begin(jax.random.key(1), base, memory, task(1, 1))
    after, _ = train(FAST, trainable, plan, opt_state=stale)
    assert_unmoved(trainable.kernels, after.kernels, plan.mask)
    changed = (trainable.rows_rd != after.rows_rd).any(axis=1)
    assert changed.tolist() == [False, True, False]


def test_each_part_has_its_own_learning_rate(base):
    """Adam's first step is the learning rate times the sign of the gradient."""
    memory = FAST.empty(base, ROWS, WIDTH)
    trainable, plan, _ = FAST.begin(jax.random.key(0), base, memory, task(0, 0))
    after, _ = train(FAST, trainable, plan, count=1)
    sizes = jax.tree.map(lambda a, b: np.abs(a - b), after, trainable)
    np.testing.assert_allclose(sizes.rows_rd[0], FAST.lr_token, rtol=1e-4)
    for name, mask in flatten(plan.mask).items():
        np.testing.assert_allclose(flatten(sizes.kernels)[name][mask], FAST.lr_neurons, rtol=1e-3)


def test_epsilon_holds_back_neurons_with_small_gradients(base):
    """Adam's first step is the learning rate times g / (|g| + epsilon); the token's epsilon stays small."""
    method = replace(FAST, adam_epsilon=1e-3)
    trainable, plan, _ = method.begin(jax.random.key(0), base, method.empty(base, ROWS, WIDTH), task(0, 0))
    opt_state = method.optimizer(plan).init(trainable)
    gradient = jax.tree.map(lambda w: jnp.full_like(w, 1e-3), trainable)
    after, _ = step(method, trainable, opt_state, plan, gradient)
    sizes = jax.tree.map(lambda a, b: np.abs(a - b), after, trainable)
    np.testing.assert_allclose(sizes.rows_rd[0], method.lr_token, rtol=1e-4)
    for name, mask in flatten(plan.mask).items():
        np.testing.assert_allclose(flatten(sizes.kernels)[name][mask], method.lr_neurons / 2, rtol=1e-3)


def test_the_chain_descends_the_loss_with_eq_7_in_it(base):
    """Against plain Adam on jax.grad of (loss + L_reg), for a second concept that overlaps the first."""
    memory = FAST.empty(base, ROWS, WIDTH)
    _, plan, trained, _ = lesson(FAST, base, memory, 0, 0)
    memory = FAST.commit(memory, plan, trained)
    trainable, plan, _ = FAST.begin(jax.random.key(1), base, memory, task(1, 0))
    assert count(plan.m_reg) > 10
    slopes = jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size)).reshape(w.shape), trainable.kernels)

    def data_term(kernels):
        return sum(jax.tree.leaves(jax.tree.map(lambda s, w: (s * w).sum(), slopes, kernels)))

    def objective(kernels):
        fixed = plan.previous, plan.base, plan.m_reg, FAST.lambda1, FAST.lambda2
        return data_term(kernels) + regularization_loss(kernels, *fixed)

    ours, state = trainable, FAST.optimizer(plan).init(trainable)
    adam = optax.adam(FAST.lr_neurons)
    theirs, reference, without = trainable.kernels, adam.init(trainable.kernels), FAST.optimizer(plan)
    plain = trainable.kernels
    plain_state = adam.init(plain)
    for _ in range(6):
        updates, state = without.update(Trainable(slopes, jnp.zeros((ROWS, WIDTH))), state, ours)
        ours = optax.apply_updates(ours, updates)
        updates, reference = adam.update(jax.grad(objective)(theirs), reference)
        theirs = optax.apply_updates(theirs, updates)
        updates, plain_state = adam.update(slopes, plain_state)
        plain = optax.apply_updates(plain, updates)

    def gap(other) -> float:
        masks = flatten(plan.mask)
        return max(np.abs(flatten(ours.kernels)[n] - leaf)[masks[n]].max() for n, leaf in flatten(other).items())

    assert gap(theirs) < 1e-5
    assert gap(plain) > 1e-3  # without L_reg it would end elsewhere, and the comparison sees that
    np.testing.assert_allclose(
        FAST.penalty(plan, ours), objective(ours.kernels) - data_term(ours.kernels), rtol=1e-2, atol=1e-4
    )


def test_lambda_zero_is_no_regularizer(base):
    off = replace(FAST, lambda1=0.0, lambda2=0.0)
    memory = off.empty(base, ROWS, WIDTH)
    _, plan, trained, _ = lesson(off, base, memory, 0, 0)
    memory = off.commit(memory, plan, trained)
    results = []
    for method in (off, FAST):
        trainable, plan, _ = method.begin(jax.random.key(1), base, memory, task(1, 0))
        assert count(plan.m_reg) > 0
        results.append(train(method, trainable, plan)[0])
        results.append(train(method, trainable, plan._replace(m_reg=constant(plan.mask, False)))[0])
    assert_same(results[0], results[1])
    assert_same(results[1], results[3])
    assert moved(results[2], results[3]) > 0


def test_random_masks_are_as_large_and_seeded(base):
    memory = FAST.empty(base, ROWS, WIDTH)
    random = replace(FAST, selection="random")
    begin = lambda method, seed: method.begin(jax.random.key(seed), base, memory, task(0, 0))  # noqa: E731
    chosen, drawn, other = begin(FAST, 0), begin(random, 0), begin(random, 1)
    for name, leaf in flatten(drawn[1].mask).items():
        np.testing.assert_array_equal(leaf.sum(axis=0), flatten(chosen[1].mask)[name].sum(axis=0))
    assert drawn[2]["neurons"] == chosen[2]["neurons"] > 0
    assert_same(drawn[1].mask, begin(random, 0)[1].mask)
    for one in (chosen, other):
        with pytest.raises(AssertionError):
            assert_same(drawn[1].mask, one[1].mask)


def test_all_trains_every_key_and_value_weight(base):
    method = replace(FAST, selection="all")
    memory = method.empty(base, ROWS, WIDTH)
    trainable, plan, trained, _ = lesson(method, base, memory, 0, 0)
    total = sum(leaf.size for leaf in jax.tree.leaves(trainable.kernels))
    assert count(plan.mask) == total and moved(trainable.kernels, trained.kernels) == total
    _, plan, _ = method.begin(jax.random.key(1), base, method.commit(memory, plan, trained), task(1, 1))
    assert count(plan.m_reg) == total


def test_a_concept_without_neurons_is_warned_of(base):
    alike = task(0, 0, captions=1)
    alike = replace(alike, calibration_hidden_kld=alike.caption_hidden_bld, calibration_mask_kl=alike.caption_mask_bl)
    with pytest.warns(UserWarning, match="no concept neurons"):
        _, plan, statistics = FAST.begin(jax.random.key(0), base, FAST.empty(base, ROWS, WIDTH), alike)
    assert count(plan.mask) == statistics["neurons"] == 0


@pytest.mark.parametrize("row", [-1, ROWS])
def test_a_row_that_is_not_reserved_is_refused(base, row):
    with pytest.raises(ValueError, match=f"token row {row} does not exist: 3 are reserved"):
        FAST.begin(jax.random.key(0), base, FAST.empty(base, ROWS, WIDTH), task(row, 0))


def test_memory_and_optimizer_survive_a_checkpoint(base, tmp_path):
    memory = FAST.empty(base, ROWS, WIDTH)
    _, plan, trained, opt_state = lesson(FAST, base, memory, 0, 0)
    tree = {"memory": FAST.commit(memory, plan, trained), "trainable": trained, "opt_state": opt_state}
    fresh = FAST.empty(base, ROWS, WIDTH)
    trainable, plan, _ = FAST.begin(jax.random.key(5), base, fresh, task(2, 2))  # another plan, the same structure
    like = {"memory": fresh, "trainable": trainable, "opt_state": FAST.optimizer(plan).init(trainable)}
    store = Checkpoints(tmp_path)
    try:
        store.save(1, tree, wait=True)
        assert_same(store.restore(1, like), tree)
    finally:
        store.close()


def test_half_precision_base_weights_train_in_float32(base):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base)
    memory = FAST.empty(half, ROWS, WIDTH)
    trainable, plan, _ = FAST.begin(jax.random.key(0), half, memory, task(0, 0))
    assert {leaf.dtype for leaf in jax.tree.leaves(trainable)} == {jnp.dtype(jnp.float32)}
    slow = plan._replace(lr_neurons=jnp.float32(3e-5))
    after, _ = train(FAST, trainable, slow, count=2)
    # a bfloat16 weight near 1 could not hold a step of 3e-5
    assert moved(trainable.kernels, after.kernels) > 0.9 * count(plan.mask)
