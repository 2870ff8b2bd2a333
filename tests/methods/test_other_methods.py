"""Textual Inversion and Continual Diffusion: their formulas, prompts, and what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.tree import flatten, like
from cns_jax.core.types import SCENE, STYLE, SUBJECT, Concept
from cns_jax.data.captions import training_prompts
from cns_jax.data.prompts import evaluation_prompts, sample_prompts
from cns_jax.methods.base import Task
from cns_jax.methods.continual_diffusion import ContinualDiffusion, Factors, Memory
from cns_jax.methods.textual_inversion import TextualInversion
from cns_jax.neurons.score import cross_attention_kernels

METHOD = ContinualDiffusion(rank=2, forget=3.0)


def concept(kind: str, word: str, *captions: str | None) -> Concept:
    paths = tuple(Path(f"{i}.png") for i in range(max(len(captions), 1)))
    return Concept("x", "<x>", word, kind, paths, captions or (None,), class_noun=False)


@pytest.fixture(scope="module")
def base(tiny_pipeline: Any) -> Any:
    return tiny_pipeline.params


@pytest.fixture(scope="module")
def second(base: Any) -> Any:
    """A second lesson of C-LoRA, with factors that are not zero."""
    rng = np.random.default_rng(0)
    empty = METHOD.empty(base, 3, 32)
    memory = Memory(
        jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), empty.change), empty.rows_rd
    )
    trainable, plan, told = METHOD.begin(
        jax.random.key(0), base, memory, Task(None, None, None, None, 1, jnp.zeros(32))
    )
    up = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), trainable.up)
    return memory, plan, trainable, trainable._replace(up=up), told


def test_the_penalty_and_its_gradient_are_the_papers(second: Any) -> None:
    """forget * sum over layers of || |S| * (A B) ||^2, by dense matrices in float64."""
    memory, plan, _, factors, _ = second
    wanted, gradient = 0.0, {}
    for name, change in flatten(memory.change).items():
        s, a, b = (np.asarray(x, np.float64) for x in (change, factors.down[name], factors.up[name]))
        wanted += METHOD.forget * np.square(np.abs(s) * (a @ b)).sum()
        gradient[name] = 2 * METHOD.forget * a.T @ (np.square(s) * (a @ b))
    found = jax.grad(lambda f: METHOD.penalty(plan, f))(factors)
    np.testing.assert_allclose(METHOD.penalty(plan, factors), wanted, rtol=1e-5)
    for name, one in gradient.items():
        np.testing.assert_allclose(found.up[name], one, rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_the_first_lesson_has_no_penalty(base: Any, second: Any) -> None:
    empty = METHOD.empty(base, 3, 32)
    _, plan, _ = METHOD.begin(jax.random.key(0), base, empty, Task(None, None, None, None, 0, jnp.zeros(32)))
    assert METHOD.penalty(plan, second[3]) == 0


def test_a_lesson_begins_where_the_last_ended_and_adds_its_product(base: Any, second: Any) -> None:
    memory, plan, begun, factors, told = second
    same = METHOD.applied(base, plan, begun).unet, METHOD.sampled(base, memory).unet
    jax.tree.map(np.testing.assert_array_equal, *same)
    after = METHOD.commit(memory, plan, factors)
    jax.tree.map(
        np.testing.assert_array_equal, METHOD.applied(base, plan, factors).unet, METHOD.sampled(base, after).unet
    )
    for name, change in flatten(after.change).items():
        product = np.asarray(factors.down[name]) @ np.asarray(factors.up[name])
        np.testing.assert_allclose(change, flatten(memory.change)[name] + product, atol=1e-5)
    assert told["rank"] == 2 and told["low_rank"] == sum(w.size for w in jax.tree.leaves((begun.down, begun.up)))


def test_a_token_is_drawn_with_the_spread_of_the_table(base: Any) -> None:
    table = np.asarray(base["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"])
    empty, task = METHOD.empty(base, 3, 32), Task(None, None, None, None, 1, jnp.zeros(32))
    rows = [METHOD.begin(jax.random.key(seed), base, empty, task)[0].rows_rd for seed in range(20)]
    drawn = np.stack([row[1] for row in rows])
    assert np.std(drawn) == pytest.approx(table.std(), rel=0.15) and len(np.unique(drawn)) == drawn.size
    assert not np.asarray(rows[0])[[0, 2]].any()


def test_only_factors_and_the_own_row_move(base: Any, second: Any) -> None:
    _, plan, _, factors, _ = second
    gradient = jax.tree.map(jnp.ones_like, factors)
    updates, _ = METHOD.optimizer(plan).update(gradient, METHOD.optimizer(plan).init(factors), factors)
    assert not np.asarray(updates.rows_rd)[[0, 2]].any()
    np.testing.assert_allclose(updates.rows_rd[1], -METHOD.lr_token, rtol=1e-4)
    for leaf in jax.tree.leaves(Factors(updates.down, updates.up, jnp.full((1,), -METHOD.lr_lora))):
        np.testing.assert_allclose(leaf, -METHOD.lr_lora, rtol=1e-4)


def test_a_token_stands_alone_where_the_method_has_it_so() -> None:
    """And a model that knows no concept is asked for the class."""
    subject, style, scene = concept(SUBJECT, "cat"), concept(STYLE, "painting"), concept(SCENE, "beach")
    assert training_prompts(subject) == ["a photo of <x>"]
    assert training_prompts(style) == ["a painting in the style of <x>"]
    assert training_prompts(concept(SUBJECT, "cat", "the black cat sits", "a dog")) == [
        "the black <x> sits",
        "a dog, <x>",
    ]
    assert sample_prompts(subject)[:2] == ["a photo of <x>", "a photo of <x> on the beach"]
    assert sample_prompts(style)[0] == "a painting of a red car on the beach in the style of <x>"
    assert sample_prompts(scene)[0] == "a photo of a red car on <x>"
    plain = [prompt.plain for one in (subject, style, scene) for prompt in evaluation_prompts([one])[:1]]
    assert plain == ["a photo of a cat", "a painting of a red car on the beach", "a photo of a red car on the beach"]


def test_textual_inversions_templates() -> None:
    """Each view has one, drawn once for all by the run's seed; captions are the other choice."""
    method, one = TextualInversion(), concept(SUBJECT, "cat", None, None, None)
    prompts = method.prompts(one, 4, 0)
    assert len(prompts) == 12 and len(set(prompts)) > 6 and all(prompt.count("<x>") == 1 for prompt in prompts)
    assert prompts == method.prompts(one, 4, 0) != method.prompts(one, 4, 1)
    assert all("style" in prompt for prompt in method.prompts(concept(STYLE, "painting"), 4, 0))
    assert TextualInversion(templates="captions").prompts(one, 2, 0) == ["a photo of <x>"] * 6


def test_textual_inversion_is_the_base_model_and_its_rows(base: Any) -> None:
    method = TextualInversion()
    memory = method.empty(base, 3, 32)
    trainable, plan, _ = method.begin(jax.random.key(0), base, memory, Task(None, None, None, None, 2, jnp.ones(32)))
    assert method.applied(base, plan, trainable).params is base
    np.testing.assert_array_equal(trainable.rows_rd, np.stack([np.zeros(32), np.zeros(32), np.ones(32)]))
    with pytest.raises(ValueError, match="raise reserved_rows"):
        method.begin(jax.random.key(0), base, memory, Task(None, None, None, None, 3, jnp.ones(32)))


def test_kernels_keep_the_nesting_of_the_model(base: Any, second: Any) -> None:
    kernels = cross_attention_kernels(base["unet"])
    assert jax.tree.structure(second[0].change) == jax.tree.structure(like(flatten(kernels), kernels))
