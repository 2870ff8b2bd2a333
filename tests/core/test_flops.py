"""Counting floating-point operations without running any."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

from cns_jax.core.xla import flops as module
from cns_jax.core.xla.flops import flops
from cns_jax.core.xla.platform import compiled_for
from cns_jax.nn.ops.convolutions import enlarged_convolution
from cns_jax.nn.ops.formulations import dot_product_attention


def test_a_product_of_matrices() -> None:
    shape = jax.ShapeDtypeStruct((64, 32), jnp.bfloat16), jax.ShapeDtypeStruct((32, 16), jnp.bfloat16)
    assert flops(jnp.matmul, *shape) == 2 * 64 * 32 * 16


def test_formulations_are_the_plain_ones() -> None:
    """A CPU's enlarged convolution takes 4/9 of the network's operations; all of attention's are seen."""
    x, kernel = jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 2))
    for kind in ("cpu", "gpu"):
        with compiled_for(kind):
            assert flops(enlarged_convolution, x, kernel) == pytest.approx(2 * 46**2 * 2 * 2, rel=0.02)  # without zeros
            found = flops(dot_product_attention, *[jnp.ones((1, 64, 2, 16))] * 3)
            assert found == pytest.approx(2 * 2 * 64 * 64 * 32, rel=0.2)


def test_without_a_cpu_backend_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(kind: str | None = None) -> list[jax.Device]:
        raise RuntimeError(f"no {kind}")

    monkeypatch.setattr(module.jax, "devices", none)
    assert math.isnan(flops(jnp.tanh, jnp.ones(2)))
