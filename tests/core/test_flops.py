"""Counting floating-point operations without running any."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

from cns_jax.core import flops as module
from cns_jax.core.flops import flops
from cns_jax.core.platform import compiled_for, platform


def test_a_product_of_matrices() -> None:
    shape = jax.ShapeDtypeStruct((64, 32), jnp.bfloat16), jax.ShapeDtypeStruct((32, 16), jnp.bfloat16)
    assert flops(jnp.matmul, *shape) == 2 * 64 * 32 * 16


def test_formulations_are_the_plain_ones() -> None:
    """A GPU's attention may be one call of a library, in which XLA counts nothing."""
    seen = []

    def product(x: jax.Array) -> jax.Array:
        seen.append(platform())
        return x @ x

    with compiled_for("gpu"):
        assert flops(product, jnp.ones((8, 8))) == 2 * 8**3
    assert seen == ["cpu"]


def test_without_a_cpu_backend_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(kind: str | None = None) -> list[jax.Device]:
        raise RuntimeError(f"no {kind}")

    monkeypatch.setattr(module.jax, "devices", none)
    assert math.isnan(flops(jnp.tanh, jnp.ones(2)))
