"""Prompts of any length with a weight a token: chunks of the text encoder's length, as AUTOMATIC1111's web UI cuts.

Legend of shapes: k chunks, l positions of the text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cns_jax.text.emphasis import PromptError, Segment, segments
from cns_jax.text.vocabulary import Vocabulary

Syntax = Literal["a1111", "plain"]
"""How prompts are read: with weights and at any length, or to the letter and cut at the text encoder's length."""

MOST_CHUNKS = 8
"""Chunks a prompt: what one picture attends to, and so its memory, grows with them."""

_LOOK_BACK = 20
"""Tokens: a chunk that is full ends after its last comma, if that is no further from its end (and in its second half,
where the text encoder is shorter than CLIP's)."""


@dataclass(frozen=True, eq=False)
class Chunks:
    """A prompt as the text encoder reads it, chunk by chunk.

    ids_kl: int32, each chunk with begin token, end of text and padding; weights_kl: float32, 1 but for weighted
    tokens.
    """

    ids_kl: np.ndarray
    weights_kl: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether there is one chunk without weights: what `Vocabulary.encode` makes of the text."""
        return len(self.ids_kl) == 1 and bool((self.weights_kl == 1).all())

    def repeated(self, count: int) -> Chunks:
        """`count` chunks, a multiple of those that are there.

        Attention to repeated chunks is attention to the chunks: every key appears equally often.
        """
        times = count // len(self.ids_kl), 1
        return Chunks(np.tile(self.ids_kl, times), np.tile(self.weights_kl, times))


def chunks_of(vocabulary: Vocabulary, prompts: Sequence[str], syntax: Syntax) -> list[Chunks]:
    """The prompts' chunks; "plain" is one chunk a prompt, as `Vocabulary.encode` makes it. Raises what that raises."""
    if syntax == "plain":
        return [Chunks(row[None], np.ones((1, len(row)), np.float32)) for row in vocabulary.encode(list(prompts))]
    return [chunked(vocabulary, prompt) for prompt in prompts]


def chunked(vocabulary: Vocabulary, prompt: str) -> Chunks:
    """The chunks of a prompt with weights (see `emphasis`); concept tokens are allowed in all of them.

    Raises UnknownTokenError for a "<name>" without concept, PromptError for a weight beyond 1000 or a prompt of more
    than MOST_CHUNKS chunks.
    """
    tokenizer = vocabulary.tokenizer
    room = tokenizer.max_length - 2
    bodies = _cut(vocabulary, segments(prompt), room)
    if len(bodies) > MOST_CHUNKS:
        raise PromptError(
            f"the prompt {prompt[:40]!r}... fills {len(bodies)} chunks of {room} tokens; {MOST_CHUNKS} is the most"
        )
    ids_kl = np.full((len(bodies), tokenizer.max_length), tokenizer.pad_id, np.int32)
    weights_kl = np.ones(ids_kl.shape, np.float32)
    for ids, weights, body in zip(ids_kl, weights_kl, bodies, strict=True):
        ids[: len(body) + 2] = [tokenizer.bos_id, *(token for token, _ in body), tokenizer.eos_id]
        weights[1 : len(body) + 1] = [weight for _, weight in body]
    return Chunks(ids_kl, weights_kl)


def _cut(vocabulary: Vocabulary, parts: list[Segment], room: int) -> list[list[tuple[int, float]]]:
    """(id, weight) of the tokens, chunk by chunk, at most `room` each; an empty prompt is one empty chunk."""
    comma = vocabulary.token_ids(",")[-1]
    chunks: list[list[tuple[int, float]]] = [[]]
    for part in parts:
        if part.begins:
            chunks.append([])
        for token in vocabulary.token_ids(part.text):
            if len(chunks[-1]) == room:
                chunks.append(_after_last_comma(chunks[-1], comma) if token != comma else [])
            chunks[-1].append((token, part.weight))
    return chunks if chunks[-1] or len(chunks) == 1 else chunks[:-1]


def _after_last_comma(full: list[tuple[int, float]], comma: int) -> list[tuple[int, float]]:
    """Take the tokens after the last comma off a full chunk, if that is near; they begin the next."""
    commas = [i for i, (token, _) in enumerate(full) if token == comma]
    if not commas or len(full) - commas[-1] > min(_LOOK_BACK, len(full) // 2):
        return []
    rest = full[commas[-1] + 1 :]
    del full[commas[-1] + 1 :]
    return rest
