"""What a low rank costs: the share of the change that it keeps, and how wrong K and V are on concepts' prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cns_jax.core.tree import flatten
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.export.exporter import Exporter
from cns_jax.engine.learned import text_encoder
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.low_rank import approximated

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Cost:
    """energy: the share of the summed squares of the change that is kept; worst_energy: the same of the worst matrix.
    error: the largest |K' - K| / |K| of a layer's keys or values over the prompts' tokens; change: the largest
    |K - K_0| / |K|, which is what training did to them."""

    energy: float
    worst_energy: float
    error: float
    change: float

    def __str__(self) -> str:
        return (
            f"keeps {self.energy:.2%} of the change's energy (of the worst matrix {self.worst_energy:.2%}); on the "
            f"concepts' prompts K and V are wrong by up to {self.error:.2%}, training changed them by up to "
            f"{self.change:.2%}"
        )


def cost_of_rank(export: Exporter, tensors: Mapping[str, np.ndarray]) -> Cost:
    """What the file with `tensors` loses of what is exported. Loads the text encoder, nothing else."""
    return cost(export.kernels, export.snapshot.kernels, approximated(export.kernels, tensors), _hidden(export))


def cost(
    base: Mapping[str, Any], kernels: Mapping[str, Any], found: Mapping[str, np.ndarray], text_nd: np.ndarray
) -> Cost:
    """base, kernels: K/V kernels before and after; found: dotted name -> kernel of low rank; text_nd: hidden states."""
    before = flatten(base)
    lost, whole, errors, changes = list[float](), list[float](), list[float](), list[float]()
    for name, kernel in flatten(kernels).items():
        kernel = np.asarray(kernel)
        error, change = found[name] - kernel, np.asarray(before[name]) - kernel
        lost.append(float(np.square(error).sum()))
        whole.append(float(np.square(change).sum()))
        size = max(float(np.linalg.norm(text_nd @ kernel)), _TINY)
        errors.append(float(np.linalg.norm(text_nd @ error)) / size)
        changes.append(float(np.linalg.norm(text_nd @ change)) / size)
    kept = [1 - a / b for a, b in zip(lost, whole, strict=True) if b] or [1.0]  # nothing taught, nothing lost
    return Cost(1 - sum(lost) / (sum(whole) or 1), min(kept), max(errors), max(changes))


def _hidden(export: Exporter) -> np.ndarray:
    """The text encoder's output for the concepts' sample prompts, with the trained rows: float32 (tokens, d)."""
    tokens = export.learned.tokens
    vocabulary = Vocabulary(load_tokenizer(export.source.tokenizer), tokens, len(tokens))
    ids = vocabulary.encode([text for concept in export.concepts for text in sample_prompts(concept)])
    model, params = export.source.model, text_encoder(export.source)
    hidden = np.asarray(jax.jit(model.encode_text)(params, ids, export.rows), np.float32)
    return hidden.reshape(-1, hidden.shape[-1])
