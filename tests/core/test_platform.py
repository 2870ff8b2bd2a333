from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.threads import in_threads
from cns_jax.core.xla.compiling import jit
from cns_jax.core.xla.platform import OPS_VARIABLE, PLAIN, compiled_for, compute_ops, cuda_capability, platform
from cns_jax.nn.ops.formulations import dot_product_attention, silu
from cns_jax.weights.folder import read_folder


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


def test_the_plain_operations_are_near_and_can_be_differentiated_forwards(tiny_folder: Path) -> None:
    """Ours for a CPU have gradients that were written by hand, which jax.jvp refuses."""
    source = read_folder(tiny_folder)
    model, unet = source.model, source.load().params["unet"]
    rng = np.random.default_rng(0)
    latents = jnp.asarray(rng.normal(size=(2, *model.latent_shape(16, 16))), jnp.float32)
    text = jnp.asarray(rng.normal(size=(2, 77, model.text_encoder.hidden_size)), jnp.float32)
    times = jnp.asarray([10, 700])

    def predicted(x: jax.Array) -> jax.Array:
        return model.predict_noise(unet, x, times, text)

    with compiled_for("cpu"):
        ours = jax.jit(lambda x: predicted(x))(latents)
        with pytest.raises(TypeError, match="custom_vjp"):
            jax.jvp(predicted, (latents,), (latents,))
    with compute_ops("plain"):
        plain, along = jax.jvp(lambda x: predicted(x), (latents,), (latents,))
        words = str(jax.make_jaxpr(lambda x: predicted(x))(latents))
    np.testing.assert_allclose(ours, plain, atol=2e-5)
    assert float(jnp.abs(along).max()) > 0
    assert "custom_vjp" not in words and "optimization_barrier" not in words


def test_the_environment_can_ask_for_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPS_VARIABLE, PLAIN)
    assert platform() == PLAIN
    with compiled_for("tpu"):
        assert platform() == "tpu"


def test_each_platform_has_a_trace_of_its_own_and_threads_know_it() -> None:
    """A function that was compiled with fast operations is not reused where plain ones are asked for."""
    traced = []

    @jit()
    def function(x: jax.Array) -> jax.Array:
        traced.append(platform())
        return silu(x)

    function(jnp.ones(2))
    with compute_ops("plain"):
        function(jnp.ones(2))
        assert in_threads(lambda _: platform(), range(4)) == [PLAIN] * 4
    function(jnp.ones(2))
    assert traced == [jax.default_backend(), PLAIN]
