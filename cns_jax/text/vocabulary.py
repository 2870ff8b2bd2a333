"""Prompts with concept tokens: one frozen table from "<cat1>" to a reserved embedding row.

Legend of shapes: b prompts, l positions.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from cns_jax.text.tokenizer import Tokenizer, bpe_tables, write_tokenizer

CONCEPT_TOKEN = re.compile(r"<[a-z0-9_-]+>")
MaskMode = Literal["caption", "caption+eot", "all"]


class TokenError(ValueError):
    """A concept token that cannot be used: bad spelling, used twice, already taken, or no row left."""


class UnknownTokenError(TokenError):
    """A prompt or a caller names a concept token which the vocabulary does not hold."""


class TruncatedPromptWarning(UserWarning):
    """A prompt is longer than the text encoder; the message names what was cut."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer and the concept tokens on top of it; host only, made once a run.

    tokens[i] has the id `base_size + i` and the row i of the trained concept rows. reserved: rows that exist
    from the start, so that a new concept changes no array shape.
    Raises TokenError if a token is not spelled "<cat1>", appears twice, is in the tokenizer already, or if
    there are more tokens than reserved rows.
    """

    tokenizer: Tokenizer
    tokens: tuple[str, ...] = ()
    reserved: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        for i, token in enumerate(self.tokens):
            if not CONCEPT_TOKEN.fullmatch(token):
                raise TokenError(
                    f"{token!r} is not a concept token: between < and > write a name of a-z, 0-9, _ or -, as in <cat1>"
                )
            if token in self.tokens[:i]:
                raise TokenError(f"two concepts have the token {token!r}; give each concept its own")
            if self.tokenizer.has(token):
                raise TokenError(f"{token!r} is in the tokenizer already; choose another token")
        if len(self.tokens) > self.reserved:
            raise TokenError(f"{len(self.tokens)} concept tokens, but {self.reserved} reserved rows; raise `reserved`")

    @property
    def base_size(self) -> int:
        """Number of ids of the tokenizer without concepts, the first concept's id."""
        return self.tokenizer.size

    @cached_property
    def _extended(self) -> Tokenizer:
        return self.tokenizer.with_tokens(self.tokens)

    def row_of(self, token: str) -> int:
        """Row of `token` among the concept rows; raises UnknownTokenError."""
        if token not in self.tokens:
            raise UnknownTokenError(f"no concept has the token {token!r}; known tokens: {self._known()}")
        return self.tokens.index(token)

    def token_ids(self, word: str) -> tuple[int, ...]:
        """Ids of a word or text without begin and end token; concept tokens allowed."""
        self._check(word)
        return self._extended.ids(word)

    def is_single_token(self, word: str) -> bool:
        """Whether `word` is one token, so that one embedding row stands for it."""
        return len(self.token_ids(word)) == 1

    def encode(self, prompts: Sequence[str], max_length: int | None = None) -> np.ndarray:
        """Token ids int32 (b, l): begin token, text, end of text, then the pad token, as CLIP expects.

        max_length: l; the tokenizer's own if None. A longer prompt loses its end, with a
        TruncatedPromptWarning naming the lost text. Raises UnknownTokenError for a "<name>" without concept.
        """
        if isinstance(prompts, str):
            raise TypeError("encode takes a sequence of prompts, not one string")
        length = self.tokenizer.max_length if max_length is None else max_length
        if length < 2:
            raise ValueError(f"max_length must hold the begin and the end token, got {length}")
        ids_bl = np.full((len(prompts), length), self.tokenizer.pad_id, np.int32)
        for row, prompt in zip(ids_bl, prompts, strict=True):
            body = self._body(prompt, length - 2)
            row[: len(body) + 2] = [self.tokenizer.bos_id, *body, self.tokenizer.eos_id]
        return ids_bl

    def caption_mask(self, ids: np.ndarray, mode: MaskMode) -> np.ndarray:
        """Which positions of ids (b, l) count as caption, bool (b, l).

        "caption": neither begin token nor end of text nor padding; "caption+eot": also the first end of text;
        "all": every position.
        """
        if mode not in get_args(MaskMode):
            raise ValueError(f"unknown mode {mode!r}, expected one of {get_args(MaskMode)}")
        ids_bl = np.asarray(ids)
        if mode == "all":
            return np.ones(ids_bl.shape, bool)
        is_end_bl = ids_bl == self.tokenizer.eos_id
        # ends so far: padding may repeat the end of text (SD-1.x) or be another token (SD-2.x)
        ended_bl = np.cumsum(is_end_bl, axis=1) > 0
        mask_bl = ~ended_bl & (ids_bl != self.tokenizer.bos_id)
        if mode == "caption+eot":
            mask_bl |= is_end_bl & (np.cumsum(is_end_bl, axis=1) == 1)
        return mask_bl

    def save(self, directory: str | Path, tokens: Sequence[str] | None = None) -> None:
        """Write a tokenizer folder in which the concept tokens are added tokens with the ids used here.

        tokens: the concepts to include, the first ones of `self.tokens` in their order (all if None): ids of
        added tokens have no gaps in any reader. Raises TokenError otherwise.
        """
        tokens = self.tokens if tokens is None else tuple(tokens)
        if tokens != self.tokens[: len(tokens)]:
            raise TokenError(f"cannot save {tokens}: ids have no gaps, so it must begin {self.tokens}")
        vocab, merges, added = bpe_tables(self.tokenizer)
        added |= {token: self.base_size + i for i, token in enumerate(tokens)}
        write_tokenizer(
            directory,
            vocab,
            merges,
            pad_token=self.tokenizer.pad_token,
            max_length=self.tokenizer.max_length,
            added=added,
        )

    def _body(self, prompt: str, room: int) -> Sequence[int]:
        self._check(prompt)
        found = self._extended.backend.encode(prompt, add_special_tokens=False)
        if len(found.ids) <= room:
            return found.ids
        cut = prompt[_letter_start(prompt, found.offsets[room][0]) :]
        warnings.warn(
            TruncatedPromptWarning(f"the prompt has {len(found.ids)} tokens, {room} fit; cut off: {cut!r}"),
            stacklevel=3,
        )
        return found.ids[:room]

    def _check(self, text: str) -> None:
        for name in CONCEPT_TOKEN.findall(text.lower()):
            if name not in self.tokens and not self.tokenizer.has(name):
                raise UnknownTokenError(f"unknown token {name} in {text!r}; known tokens: {self._known()}")

    def _known(self) -> str:
        return ", ".join((*bpe_tables(self.tokenizer)[2], *self.tokens)) or "none"


def _letter_start(text: str, at: int) -> int:
    """Where the letter begins that a mark at `at` belongs to; `at` itself if there is none.

    An accent may be a token of its own, and NFC may reorder accents, which the tokenizer's offsets do not follow.
    """
    while at and unicodedata.category(text[at]).startswith("M") and text[at - 1] != ">":  # not into "<cat1>"
        at -= 1
    return at
