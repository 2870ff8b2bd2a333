from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from cns_jax.core.platform import compiled_for, platform
from cns_jax.nn.formulations import dot_product_attention


def test_the_platform_is_that_of_the_machine_unless_asked_otherwise() -> None:
    assert platform() == jax.default_backend()
    with pytest.raises(RuntimeError), compiled_for("tpu"):
        assert platform() == "tpu"
        raise RuntimeError
    assert platform() == jax.default_backend()


def test_attention_is_traced_for_the_platform_that_is_asked_for() -> None:
    x = jnp.zeros((1, 4, 2, 8))

    def program() -> str:
        return str(jax.make_jaxpr(lambda x: dot_product_attention(x, x, x))(x))

    with compiled_for("cpu"):
        here = program()
    with compiled_for("tpu"):
        there = program()
    assert here != there
