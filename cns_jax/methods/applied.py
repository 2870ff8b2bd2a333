"""What the networks run with: the parameters, the concept rows, and low-rank additions that a prompt may mix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cns_jax.core.tree import overlay
from cns_jax.nn.model import Model
from cns_jax.nn.ops.formulations import even

Mix = Callable[[Any, jax.Array], jax.Array]
"""(facts, ids (b, l)) -> the share of each set of low-rank additions at each position (b, l, s)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Applied:
    """A pytree: the one way to say what to compute or sample with.

    params: of all parts that are used ({"unet": ..., "text_encoder": ..., "vae": ...}). rows_rd: concept rows (r, d).
    low_rank: dotted name of a cross-attention to_k or to_v -> (down (s, in, rank), up (s, rank, out)) of s sets, whose
    outputs x @ down @ up are added, each times its share. mix: what gives the shares of a prompt, from `facts` and the
    prompt's token ids; None: every share is 1. A method whose `mix` is set is no plain Stable Diffusion.
    """

    params: Mapping[str, Any]
    rows_rd: jax.Array
    low_rank: Mapping[str, tuple[jax.Array, jax.Array]] | None = None
    facts: Any = None
    mix: Mix | None = field(default=None, metadata={"static": True})

    @property
    def unet(self) -> Mapping[str, Any]:
        """The UNet's parameters, without low-rank additions."""
        return self.params["unet"]

    def with_unet(self, leaves: Mapping[str, Any]) -> Applied:
        """With `leaves` in place of their namesakes in the UNet; raises KeyError for one that it does not have."""
        return replace(self, params={**self.params, "unet": overlay(self.unet, leaves)})

    def encode(self, model: Model, ids_bl: jax.Array) -> jax.Array:
        """Hidden states (b, l, d) of token ids."""
        return model.encode_text(self.params["text_encoder"], ids_bl, self.rows_rd)

    def conditioning(self, hidden_bld: jax.Array, ids_bl: jax.Array) -> jax.Array:
        """What `predict` takes of a prompt: its hidden states, and behind their channels the shares of the sets, so
        that whatever moves or repeats prompts moves their shares, too."""
        if self.mix is None:
            return hidden_bld
        return jnp.concatenate([hidden_bld, self.mix(self.facts, ids_bl).astype(hidden_bld.dtype)], axis=-1)

    def predict(
        self,
        model: Model,
        latents_bhwc: jax.Array,
        timesteps_b: jax.Array,
        text_bkd: jax.Array,
        detach_begin: bool = False,
    ) -> jax.Array:
        """The UNet's output, shaped like the latents (see Model.predict_noise). text_bkd: of `conditioning`."""
        if self.low_rank is None:
            return model.predict_noise(self.unet, latents_bhwc, timesteps_b, text_bkd, detach_begin)
        shares_ns = None
        if self.mix is not None:
            width = model.text_encoder.hidden_size
            text_bkd, shares = text_bkd[..., :width], even(text_bkd[..., width:])
            shares_ns = shares.reshape(-1, shares.shape[-1])
        with nn.intercept_methods(_adding(self.low_rank, shares_ns)):
            return model.predict_noise(self.unet, latents_bhwc, timesteps_b, text_bkd, detach_begin)


def _adding(low_rank: Mapping[str, tuple[jax.Array, jax.Array]], shares_ns: jax.Array | None) -> Any:
    """An interceptor of flax that adds to the outputs of the linear layers in `low_rank`. shares_ns: of the rows that
    they take; None: every share is 1."""

    def add(call: Any, arguments: Any, named: Any, context: Any) -> Any:
        name = ".".join(context.module.path)
        if context.method_name != "__call__" or name not in low_rank:
            return call(*arguments, **named)
        (x_nc,) = arguments
        down_sir, up_sro = low_rank[name]
        low_snr = jnp.einsum("ni,sir->snr", x_nc, down_sir.astype(x_nc.dtype))
        if shares_ns is not None:
            low_snr *= shares_ns.T[..., None]
        return call(x_nc) + jnp.einsum("snr,sro->no", low_snr, up_sro.astype(x_nc.dtype))

    return add
