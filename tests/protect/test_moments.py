"""What is remembered of protected prompts: exact sums, which runs can add."""

from __future__ import annotations

import numpy as np
import pytest

from cns_jax.core.types import SCENE, STYLE, SUBJECT, Concept
from cns_jax.data.prompts import sample_prompts
from cns_jax.protect.moments import Protected, second_moment
from cns_jax.protect.prompts import concept_prompts, general_captions, overlapping

RNG = np.random.default_rng(3)
FEATURES = RNG.normal(size=(4, 5, 6))
KERNELS = {"a.kernel": RNG.normal(size=(6, 3)), "b.kernel": RNG.normal(size=(6, 8))}


def test_the_moment_is_the_mean_over_all_positions() -> None:
    dense = sum(np.outer(x, x) for prompt in FEATURES for x in prompt) / 20
    np.testing.assert_allclose(second_moment(FEATURES), dense, rtol=1e-12)


def test_what_is_protected_costs_its_quadratic() -> None:
    """1/2 tr(W^T C W) - tr(W^T B) + const is half the mean squared change of the protected keys or values."""
    held = Protected.of(second_moment(FEATURES), KERNELS, 2.0)
    moved = {name: kernel + RNG.normal(size=kernel.shape) for name, kernel in KERNELS.items()}
    x_nd = FEATURES.reshape(-1, 6)
    for name, kernel in KERNELS.items():
        w, c, b = moved[name], held.moment_dd, held.outputs[name]
        quadratic = 0.5 * np.trace(w.T @ c @ w) - np.trace(w.T @ b) + 0.5 * np.trace(kernel.T @ c @ kernel)
        assert quadratic == pytest.approx(2.0 * 0.5 * np.square(x_nd @ (w - kernel)).sum() / len(x_nd), rel=1e-9)


def test_the_moments_of_two_runs_add() -> None:
    one, other = second_moment(FEATURES[:2]), second_moment(FEATURES[2:])
    later = {name: kernel + 1 for name, kernel in KERNELS.items()}
    both = Protected.of(one, KERNELS) + Protected.of(other, later, 3.0)
    np.testing.assert_allclose(both.moment_dd, one + 3 * other)
    for name in KERNELS:
        np.testing.assert_allclose(both.outputs[name], one @ KERNELS[name] + 3 * other @ later[name])


@pytest.mark.parametrize("kind", [SUBJECT, STYLE, SCENE])
def test_no_protected_prompt_is_one_that_pictures_are_scored_with(kind: str) -> None:
    concept = Concept("x", "<x>", "cat", kind, (), ())
    prompts = concept_prompts(concept)
    assert len(prompts) == len(set(prompts)) == 24 and all("<x> cat" in prompt for prompt in prompts)
    assert not overlapping(prompts, sample_prompts(concept))
    assert overlapping(["A  photo of a <x> cat on the beach"], ["a photo of a <x> cat on the beach"])


def test_the_shipped_captions() -> None:
    captions = general_captions()
    assert 900 <= len(captions) <= 1200
    assert all(text.isascii() and text == text.strip() and len(text.split()) <= 25 for text in captions)
