"""Text features of a run's concepts: second moments that say which directions of a change their prompts read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from cns_jax.core.types import Concept
from cns_jax.data.captions import plain_caption, with_token
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.runs.export.exporter import Exporter
from cns_jax.engine.runs.learned import text_encoder
from cns_jax.neurons.calibration import DIVERSE_PROMPTS, draw
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import TruncatedPromptWarning, Vocabulary

_OWN, _GENERAL = 12, 20  # prompts


@dataclass(frozen=True)
class Features:
    """Of an export's prompts; the text encoder is loaded when the first are asked for, and nothing else is."""

    export: Exporter

    def of(self, prompts: Sequence[str]) -> np.ndarray:
        """The text encoder's output with the trained rows: float32 (tokens of all prompts, d)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncatedPromptWarning)  # nobody wrote these prompts; their ends may go
            ids = self._vocabulary.encode(list(prompts))
        hidden = np.asarray(self._encode(ids), np.float32)
        return hidden.reshape(-1, hidden.shape[-1])

    def moment(self, prompts: Sequence[str]) -> np.ndarray:
        """Their mean of x x^T, float32 (d, d)."""
        text_nd = self.of(prompts)
        return text_nd.T @ text_nd / len(text_nd)

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """A concept: the features of its sample prompts (n, d). Errors are told on them; nothing is fitted to them."""
        return [self.of(sample_prompts(concept)) for concept in self.export.concepts]

    @cached_property
    def general(self) -> np.ndarray:
        """The moment of prompts of all kinds, (d, d)."""
        return self.moment(draw(DIVERSE_PROMPTS, _GENERAL, 0))

    @cached_property
    def written(self) -> list[np.ndarray]:
        """A concept: the moment of prompts that put it into all kinds of company, (d, d)."""
        company = draw(DIVERSE_PROMPTS, _OWN, 1)
        return [self.moment(_prompts(concept, company)) for concept in self.export.concepts]

    def weighing(self, kept: Sequence[np.ndarray | None]) -> np.ndarray:
        """Which directions count in the run's first concepts' changes, (d, d): those that the concepts' own prompts
        read, and prompts of all kinds, each with the same energy.

        kept: of each of these concepts the moment that the run kept, None where it has none.
        """
        own = [self.written[index] if moment is None else moment for index, moment in enumerate(kept)]
        return sum((m / np.trace(m) for m in own), self.general / np.trace(self.general))

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        tokens = self.export.learned.tokens
        return Vocabulary(load_tokenizer(self.export.source.tokenizer), tokens, len(tokens))

    @cached_property
    def _encode(self) -> Callable[[np.ndarray], Any]:
        encode, params = jax.jit(self.export.source.model.encode_text), text_encoder(self.export.source)
        return lambda ids: encode(params, ids, self.export.rows)


def _prompts(concept: Concept, company: Sequence[str]) -> list[str]:
    """The concept by itself, and with what else may stand in a prompt behind it."""
    alone = with_token(concept, plain_caption(concept))
    return [alone, *(f"{alone}, {text}" for text in company)]
