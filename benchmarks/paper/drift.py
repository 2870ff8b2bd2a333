"""Why lessons disturb each other: through which neurons they move the first concept, and how alike concepts are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.data.prompts import sample_prompts, without_tokens
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.runs.concepts import taught_concepts
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.snapshot import Snapshot

Kernels = Mapping[str, np.ndarray]


def drift(stages: Stages) -> list[dict[str, float]]:
    """For every lesson after the first, the energy of what it changed in the cross-attention keys and values of the
    first concept's prompts, as a share of the base model's energy there.

    own: by the weights that the first concept selected; earlier: by those that only other earlier concepts did; new: by
    the rest. They do not add up to "all": changes may cancel. Hidden states are those of the first concept's single
    prompts, with its final token.
    """
    learned = stages.learned
    base = cross_attention_kernels(stages.studio.params["unet"])
    snapshots = [learned.snapshot(stages.studio.params, index) for index in range(stages.last)]
    kernels = [flatten(cross_attention_kernels(stages.at(index + 1).unet)) for index in range(stages.last)]
    hidden = hidden_states(stages, sample_prompts(taught_concepts(learned)[0]))
    positions_ni = hidden.reshape(-1, hidden.shape[-1])
    whole = energy(positions_ni, {name: np.asarray(leaf) for name, leaf in flatten(base).items()})
    first = {name: np.asarray(mask) for name, mask in flatten(_mask(snapshots[0], base)).items()}
    union, out = first, []
    for old, new, after in zip(kernels, kernels[1:], snapshots[1:], strict=False):
        change = {name: np.asarray(new[name]) - np.asarray(old[name]) for name in old}
        own = {name: delta * first[name] for name, delta in change.items()}
        earlier = {name: delta * (union[name] & ~first[name]) for name, delta in change.items()}
        unseen = {name: delta * ~union[name] for name, delta in change.items()}
        parts = {"all": change, "own": own, "earlier": earlier, "new": unseen}
        out.append({part: energy(positions_ni, kernels) / whole for part, kernels in parts.items()})
        union = {name: union[name] | np.asarray(mask) for name, mask in flatten(_mask(after, base)).items()}
    return out


def _mask(snapshot: Snapshot, base: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a lesson might change; every weight where the method does not choose."""
    return snapshot.mask or jax.tree.map(lambda w: np.ones(w.shape, bool), base)


def likeness(stages: Stages) -> dict[str, float]:
    """How alike the text features of different concepts are: mean cosine over pairs and positions, the begin token's
    left out, of their first prompts with their final tokens ("taught") and without them ("plain")."""
    prompts = [sample_prompts(concept)[0] for concept in taught_concepts(stages.learned)]
    found = {}
    for name, texts in {"taught": prompts, "plain": [without_tokens(prompt) for prompt in prompts]}.items():
        features_cld = hidden_states(stages, texts)[:, 1:]
        features_cld = features_cld / np.linalg.norm(features_cld, axis=-1, keepdims=True)
        cosines_lcc = np.einsum("cld,eld->lce", features_cld, features_cld)
        pairs = np.triu_indices(len(texts), 1)
        found[name] = float(cosines_lcc[:, *pairs].mean()) if len(texts) > 1 else math.nan
    return found


def hidden_states(stages: Stages, prompts: Sequence[str]) -> np.ndarray:
    """Of the text encoder with the tokens' final rows, float32 (b, l, d)."""
    studio = stages.studio
    rows_rd = jnp.asarray(stages.learned.applied(studio.params).rows_rd)
    ids_bl = jnp.asarray(studio.vocabulary.encode(prompts))
    return np.asarray(studio.model.encode_text(studio.params["text_encoder"], ids_bl, rows_rd), np.float32)


def energy(positions_ni: np.ndarray, kernels: Kernels) -> float:
    """Sum of squares of all products of hidden states (n, i) with kernels (i, o)."""
    return float(sum(np.square(positions_ni @ kernel).sum() for kernel in kernels.values()))
