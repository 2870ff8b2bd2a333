"""Through which neurons later lessons move the first concept: those that L_reg holds, and those it does not see."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.prepare import taught_concepts
from cns_jax.engine.stages import Stages
from cns_jax.neurons.score import cross_attention_kernels

Kernels = Mapping[str, np.ndarray]


def drift(stages: Stages) -> list[dict[str, float]]:
    """For every lesson after the first, the energy of what it changed in the cross-attention keys and values of the
    first concept's prompts, as a share of the base model's energy there.

    own: by the weights that the first concept selected; earlier: by those that only other earlier concepts did; new: by
    the rest. They do not add up to "all": changes may cancel. Hidden states are those of the first concept's single
    prompts, with its final token.
    """
    studio, learned = stages.studio, stages.learned
    base = cross_attention_kernels(studio.params["unet"])
    snapshots = [learned.snapshot(base, index) for index in range(stages.last)]
    ids = studio.vocabulary.encode(sample_prompts(taught_concepts(learned)[0]))
    rows_rd = jnp.asarray(snapshots[-1].rows_rd)
    hidden = np.asarray(studio.model.encode_text(studio.params["text_encoder"], jnp.asarray(ids), rows_rd), np.float32)
    positions_ni = hidden.reshape(-1, hidden.shape[-1])
    whole = energy(positions_ni, {name: np.asarray(leaf) for name, leaf in flatten(base).items()})
    first = {name: np.asarray(mask) for name, mask in flatten(snapshots[0].mask).items()}
    union, out = first, []
    for before, after in zip(snapshots, snapshots[1:], strict=False):
        old, new = flatten(before.kernels), flatten(after.kernels)
        change = {name: np.asarray(new[name]) - np.asarray(old[name]) for name in old}
        own = {name: delta * first[name] for name, delta in change.items()}
        earlier = {name: delta * (union[name] & ~first[name]) for name, delta in change.items()}
        unseen = {name: delta * ~union[name] for name, delta in change.items()}
        parts = {"all": change, "own": own, "earlier": earlier, "new": unseen}
        out.append({part: energy(positions_ni, kernels) / whole for part, kernels in parts.items()})
        union = {name: union[name] | np.asarray(mask) for name, mask in flatten(after.mask).items()}
    return out


def energy(positions_ni: np.ndarray, kernels: Kernels) -> float:
    """Sum of squares of all products of hidden states (n, i) with kernels (i, o)."""
    return float(sum(np.square(positions_ni @ kernel).sum() for kernel in kernels.values()))
