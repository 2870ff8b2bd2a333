from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from cns_jax.core.xla.platform import compiled_for, cuda_capability, platform, shapes_of
from cns_jax.nn.layers import Dense
from cns_jax.nn.model import Model
from cns_jax.nn.ops.formulations import dot_product_attention
from cns_jax.nn.sizes import SD15, SD21


def test_the_platform_is_that_of_the_machine_unless_asked_otherwise() -> None:
    assert platform() == jax.default_backend()
    with pytest.raises(RuntimeError), compiled_for("tpu"):
        assert platform() == "tpu"
        raise RuntimeError
    assert platform() == jax.default_backend()


@pytest.mark.parametrize(("found", "capability"), [("9.0", 9.0), ("7.5", 7.5), ("gfx942", 0.0), (None, 0.0)])
def test_only_nvidias_gpus_have_a_capability(
    found: str | None, capability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cuda_capability() == 0
    with compiled_for("gpu"):
        assert cuda_capability() == 9
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability=found)])
    assert cuda_capability() == capability


def test_attention_is_traced_for_the_platform_that_is_asked_for() -> None:
    x = jnp.zeros((1, 4, 2, 8))

    def program() -> str:
        return str(jax.make_jaxpr(lambda x: dot_product_attention(x, x, x))(x))

    with compiled_for("cpu"):
        here = program()
    with compiled_for("tpu"):
        there = program()
    assert here != there


@pytest.mark.parametrize("model", [SD15, SD21])
def test_shapes_alone_are_those_of_the_parameters(model: Model) -> None:
    kind = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    key = jax.random.key(0)
    assert kind(shapes_of(model.init, key)) == kind(jax.eval_shape(model.init, key))


def test_a_later_compilation_does_not_find_what_was_traced_for_shapes() -> None:
    layer = Dense(3)
    rows = jnp.ones((2, 4))
    shapes_of(layer.init, jax.random.key(0), rows)
    params = jax.jit(layer.init)(jax.random.key(0), rows)["params"]
    assert float(jnp.abs(params["kernel"]).sum()) > 0
    assert float(jnp.abs(jax.jit(layer.apply)({"params": params}, rows)).sum()) > 0
