"""Two concepts, one after another, by the real loss on a tiny random Stable Diffusion: what must hold after."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import assert_same, assert_unmoved, moved

from cns_jax.core.mesh import make_mesh, replicate
from cns_jax.core.types import ConceptData, Frozen, Trainable
from cns_jax.diffusion.schedule import Schedule
from cns_jax.engine.teach.step import StepSpec, draw, initial_state, method_loss, train_steps
from cns_jax.methods.cns import CNS, Memory, Plan
from cns_jax.neurons.select import constant, count, expand, intersect
from cns_jax.nn.attention import Attention, Context

METHOD = CNS(lambda1=1.0, lambda2=0.1, lr_neurons=1e-2, lr_token=1e-2)
ROWS, STEPS = 4, 4
MESH, KEY = make_mesh(1, jax.devices()[:1]), jax.random.key(0)
GRADIENT = jax.jit(jax.grad(method_loss, argnums=3, has_aux=True), static_argnums=0)
# the second concept's prompt names the first as well, so that the first one's row receives a gradient
PROMPTS = np.array([[0, 5, 6, 40, 7, 8, 9, 1], [0, 5, 41, 7, 40, 11, 12, 1]], np.int32)


class Lesson(NamedTuple):
    before: Memory
    start: Trainable
    plan: Plan
    statistics: dict[str, float]
    trained: Trainable
    gradient: Trainable
    penalties: list[float]
    after: Memory


def data_of(row: int) -> ConceptData:
    """Pictures of noise with the prompt of a row."""
    rng = np.random.default_rng(row)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    ids = jnp.asarray(PROMPTS[row : row + 1])
    return ConceptData(normal(1, 4, 4, 8), ids, jnp.int32(1), normal(1, 4, 4, 4), ids, jnp.int32(1))


def teach(tiny: Any, memory: Memory, row: int, plan_of: Any = lambda plan: plan) -> Lesson:
    """A lesson by the step that training runs."""
    spec = StepSpec(tiny.model, METHOD, Schedule(), MESH, 1, 1, 0.0)
    trainable, plan, statistics = METHOD.begin(jax.random.key(row), tiny.base, memory, tiny.task(row, seed=row % 2))
    plan, start, penalties = plan_of(plan), jax.tree.map(np.array, trainable), []
    begun = initial_state(METHOD, trainable, plan), Frozen(tiny.base, plan), data_of(row)
    state, frozen, data = replicate(MESH, begun)
    for _ in range(STEPS):
        batch = draw(spec, KEY, state.step, data)
        gradient, _ = GRADIENT(spec, tiny.base, plan, state.trainable, batch, KEY)
        state, logs = train_steps(spec, 1, state, frozen, data, KEY)
        penalties.append(float(logs["l_reg"]))
    after = METHOD.commit(memory, plan, state.trainable)
    return Lesson(memory, start, plan, statistics, state.trainable, gradient, penalties, after)


@pytest.fixture(scope="module")
def base_before(tiny):
    return jax.tree.map(np.array, tiny.base)


@pytest.fixture(scope="module")
def lessons(tiny, base_before):
    first = teach(tiny, METHOD.empty(tiny.base, ROWS, 32), 0)
    return first, teach(tiny, first.after, 1)


def test_the_lessons_are_not_vacuous(lessons):
    for lesson in lessons:
        total = sum(leaf.size for leaf in jax.tree.leaves(lesson.plan.mask))
        assert 0.02 * total < count(lesson.plan.mask) < 0.3 * total
        assert lesson.statistics["neurons"] == count(lesson.plan.mask)
        assert moved(lesson.start.kernels, lesson.trained.kernels) > 0.9 * count(lesson.plan.mask)
        # the loss pulls at nearly every weight, so standing still is the masks' work
        assert np.mean([(leaf != 0).mean() for leaf in jax.tree.leaves(lesson.gradient.kernels)]) > 0.9
    assert 0 < count(lessons[1].plan.m_reg) < count(lessons[1].plan.mask)


def test_outside_the_concept_mask_every_bit_stays(lessons):
    for lesson in lessons:
        assert_unmoved(lesson.start.kernels, lesson.trained.kernels, lesson.plan.mask)


def test_everything_else_in_the_model_stays(lessons, tiny, base_before):
    assert_same(base_before, jax.tree.map(np.asarray, tiny.base))
    unet = METHOD.sampled(tiny.base, lessons[1].after).unet
    assert_unmoved(base_before["unet"], unet, expand(lessons[1].after.union, base_before["unet"]))


def test_only_the_row_of_the_new_token_moves(lessons):
    for row, lesson in enumerate(lessons):
        changed = (np.asarray(lesson.start.rows_rd) != np.asarray(lesson.trained.rows_rd)).any(axis=1)
        assert changed.tolist() == [r == row for r in range(ROWS)]
    assert np.abs(lessons[1].gradient.rows_rd[0]).max() > 0


def test_without_the_mask_of_rows_the_first_token_would_move(lessons, tiny):
    everywhere = lambda plan: plan._replace(row_r=jnp.ones(ROWS, bool))  # noqa: E731
    lesson = teach(tiny, lessons[0].after, 1, everywhere)
    changed = (np.asarray(lesson.start.rows_rd) != np.asarray(lesson.trained.rows_rd)).any(axis=1)
    assert changed[:2].all()


def test_the_check_of_the_mask_can_fail(lessons, tiny):
    everywhere = lambda plan: plan._replace(mask=constant(plan.mask, True))  # noqa: E731
    lesson = teach(tiny, lessons[0].after, 1, everywhere)
    with pytest.raises(AssertionError, match="moved outside the mask"):
        assert_unmoved(lesson.start.kernels, lesson.trained.kernels, lessons[1].plan.mask)


def test_the_regularizer_is_absent_for_the_first_concept(lessons):
    first, second = lessons
    assert count(first.plan.m_reg) == 0 and first.statistics["regularized"] == 0
    assert first.penalties == [0.0] * STEPS
    assert second.penalties[0] > 0  # lambda2 pulls from the start, since the first concept left W_0
    assert_same(second.plan.m_reg, intersect(second.plan.mask, first.plan.mask))
    assert_same(second.plan.previous, first.trained.kernels)


def test_all_concepts_share_one_compilation(lessons, tiny):
    before = train_steps.jitted._cache_size()
    teach(tiny, METHOD.empty(tiny.base, ROWS, 32), 0)
    teach(tiny, lessons[0].after, 1)
    assert train_steps.jitted._cache_size() == before


def test_a_memory_of_another_shape_would_compile_again(tiny):
    """The partner: the count above does grow with what a careless method might do, a row a concept."""
    step = jax.jit(lambda memory: METHOD.sampled({"unet": memory.kernels}, memory).rows_rd)
    for rows in (1, 2):
        step(METHOD.empty(tiny.base, rows, 32))
    assert step._cache_size() == 2


def test_the_begin_token_gets_no_gradient_through_keys_and_values():
    """detach_begin: what stands at position 0 does not enter the kernels' gradient, though it enters the output."""
    rng = np.random.default_rng(0)
    query, rows = (jnp.asarray(rng.normal(size=(5, 8)).astype(np.float32)) for _ in range(2))
    context = Context(rows, length=5, own=5)
    attention = Attention(heads=2, head_dim=4, channels=8)
    params = attention.init(jax.random.key(0), query, 5, context)

    def begin_share(detach: bool) -> float:
        """The largest weight of position 0 in a kernel's gradient, a sum of outer products with the context."""
        gradient = jax.grad(lambda p: jnp.square(attention.apply(p, query, 5, context, detach)).sum())(params)["params"]
        leaves = (np.asarray(gradient[name]["kernel"]) for name in ("to_k", "to_v"))
        return max(np.abs(np.linalg.lstsq(np.asarray(rows).T, leaf, rcond=None)[0][0]).max() for leaf in leaves)

    assert begin_share(METHOD.detach_begin) < 1e-4
    assert begin_share(False) > 0.1
