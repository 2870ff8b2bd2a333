"""Strength: the line from the base model's kernels through the trained ones."""

from __future__ import annotations

import numpy as np
import pytest

from cns_jax.core.settings import SettingsError
from cns_jax.weights.strength import scaled_kernels

BASE = {"a": {"kernel": np.float32([[0.1, 2.0]])}, "b": {"kernel": np.float32([[1.0]])}}
TAUGHT = {"a": {"kernel": np.float32([[0.3, 1.0]])}, "b": {"kernel": np.float32([[1.0]])}}


def test_one_is_what_was_trained_and_zero_is_the_base() -> None:
    assert scaled_kernels(BASE, TAUGHT, 1.0) is TAUGHT
    none = scaled_kernels(BASE, TAUGHT, 0.0)
    for name in ("a", "b"):
        np.testing.assert_array_equal(none[name]["kernel"], BASE[name]["kernel"])
        assert none[name]["kernel"].dtype == np.float32


@pytest.mark.parametrize("strength", [0.25, 0.8, 2])
def test_what_lies_between_and_beyond(strength: float) -> None:
    scaled = scaled_kernels(BASE, TAUGHT, strength)
    np.testing.assert_allclose(scaled["a"]["kernel"], [[0.1 + strength * 0.2, 2.0 - strength]], rtol=1e-6)
    np.testing.assert_array_equal(scaled["b"]["kernel"], [[1.0]])


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan"), float("inf")])
def test_strengths_out_of_range(strength: float) -> None:
    with pytest.raises(SettingsError, match=r"strength=.* must be from 0 \(the base model's weights\) to 2"):
        scaled_kernels(BASE, TAUGHT, strength)


def test_kernels_of_another_model() -> None:
    with pytest.raises(ValueError, match="names differ: \\['b.kernel'\\]"):
        scaled_kernels({"a": BASE["a"]}, TAUGHT, 0.5)
