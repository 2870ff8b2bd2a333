from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.tree import flatten
from cns_jax.neurons.score import scores
from cns_jax.neurons.select import (
    concept_neurons,
    constant,
    count,
    expand,
    intersect,
    minus,
    random_like,
    selected,
    union,
)
from cns_jax.neurons.top import kept, top_inputs


def equal(a, b) -> bool:
    return all((x == y).all() for x, y in zip(flatten(a).values(), flatten(b).values(), strict=True))


def test_one_prompt_selects_exactly_k_an_output_unit_and_more_prompts_fewer(kernels, norms):
    tree, prompts = kernels(), norms(0, 6)
    one, all_six = selected(tree, prompts[:1], 0.3), selected(tree, prompts, 0.3)
    assert all((leaf.sum(axis=0) == kept(16, 0.3)).all() for leaf in flatten(one).values())
    assert equal(minus(all_six, one), constant(tree, False))
    assert count(all_six) < count(one)


def test_the_and_over_prompts_is_that_of_single_masks(kernels, norms):
    tree, prompts = kernels(1), norms(1, 4)
    for name, leaf in flatten(selected(tree, prompts, 0.3)).items():
        single = [top_inputs(scores(flatten(tree)[name], n), 0.3) for n in prompts]
        np.testing.assert_array_equal(leaf, np.logical_and.reduce(single))


def test_concept_is_base_without_general(kernels, norms):
    tree, captions, calibration = kernels(2), norms(3, 2), norms(4, 3)
    found = concept_neurons(tree, captions, calibration, 0.5)
    assert equal(found.base, selected(tree, captions, 0.5))
    assert equal(found.general, selected(tree, calibration, 0.5))
    assert count(found.concept) > 0 and count(found.general) > 0
    assert count(intersect(found.concept, found.general)) == 0
    assert equal(union(found.concept, intersect(found.base, found.general)), found.base)


@pytest.mark.parametrize(("captions", "prompts", "named"), [(0, 2, "no captions"), (2, 0, "no calibration prompts")])
def test_an_and_over_no_prompts_is_refused(kernels, norms, captions, prompts, named):
    with pytest.raises(ValueError, match=named):
        concept_neurons(kernels(), norms(0, captions), norms(0, prompts), 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_mask_algebra(masks, seed):
    a, b, c = masks(3 * seed), masks(3 * seed + 1), masks(3 * seed + 2)
    none, every = constant(a, False), constant(a, True)
    assert equal(union(a, b), union(b, a)) and equal(intersect(a, b), intersect(b, a))
    assert equal(union(a, union(b, c)), union(union(a, b), c))
    assert equal(intersect(a, union(b, c)), union(intersect(a, b), intersect(a, c)))
    assert equal(minus(a, b), intersect(a, minus(every, b)))
    assert equal(minus(every, union(a, b)), intersect(minus(every, a), minus(every, b)))
    assert equal(union(a, none), a) and equal(intersect(a, every), a) and equal(minus(a, a), none)
    assert count(union(a, b)) == count(a) + count(b) - count(intersect(a, b))
    assert not equal(a, b)


def test_random_masks_have_the_size_of_the_mask_in_every_output_unit(masks):
    mask = masks(7)
    drawn = random_like(jax.random.key(0), mask)
    for name, leaf in flatten(drawn).items():
        np.testing.assert_array_equal(leaf.sum(axis=0), flatten(mask)[name].sum(axis=0))
    assert not equal(drawn, mask)
    assert equal(drawn, random_like(jax.random.key(0), mask))
    assert not equal(drawn, random_like(jax.random.key(1), mask))


def test_expand_is_false_wherever_nothing_is_trained(masks):
    mask = masks(0)
    untrained = {"down_blocks.0": {"attn2": {"to_q": {"kernel": jnp.ones((8, 8))}}}, "conv_in": {"bias": jnp.ones(3)}}
    untrained["down_blocks.0"]["attn2"] |= mask["down_blocks.0"]["attn2"]
    params = {**mask, **untrained}
    full = flatten(expand(mask, params))
    assert {n: leaf.shape for n, leaf in full.items()} == {n: leaf.shape for n, leaf in flatten(params).items()}
    assert all((full[name] == leaf).all() for name, leaf in flatten(mask).items())
    assert sum(int(leaf.sum()) for leaf in full.values()) == count(mask)
