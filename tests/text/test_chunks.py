"""Long and weighted prompts: chunks of the text encoder's length, each as `encode` would make it."""

from __future__ import annotations

import numpy as np
import pytest

from cns_jax.text.chunks import MOST_CHUNKS, chunked
from cns_jax.text.emphasis import PromptError
from cns_jax.text.vocabulary import UnknownTokenError, Vocabulary


@pytest.fixture
def vocabulary(tiny) -> Vocabulary:
    return Vocabulary(tiny, ("<cat1>", "<dog1>"), reserved=4)


@pytest.mark.parametrize("prompt", ["", "a cat", "a photo of <cat1> cat, :) 16:9", "  a  <DOG1>dog\n"])
def test_a_prompt_without_syntax_is_encoded_as_ever(vocabulary: Vocabulary, prompt: str) -> None:
    chunks = chunked(vocabulary, prompt)
    assert chunks.plain
    np.testing.assert_array_equal(chunks.ids_kl, vocabulary.encode([prompt]))
    assert chunks.ids_kl.dtype == np.int32


def test_weights_lie_on_their_tokens(vocabulary: Vocabulary) -> None:
    chunks = chunked(vocabulary, "a (<cat1> cat:1.5) on")
    np.testing.assert_array_equal(chunks.ids_kl, vocabulary.encode(["a <cat1> cat on"]))
    np.testing.assert_array_equal(chunks.weights_kl[0], [1, 1, 1.5, 1.5] + [1] * 28)
    assert not chunks.plain


def test_long_prompts_lose_nothing(vocabulary: Vocabulary) -> None:
    chunks = chunked(vocabulary, "cat " * 65 + "<dog1>")
    cat, room = vocabulary.token_ids("cat"), 30
    assert chunks.ids_kl.shape == (3, 32)
    tokenizer = vocabulary.tokenizer
    for row, body in zip(chunks.ids_kl, [cat * room, cat * room, cat * 5 + (vocabulary.base_size + 1,)], strict=True):
        wanted = [tokenizer.bos_id, *body, tokenizer.eos_id]
        assert row.tolist() == wanted + [tokenizer.pad_id] * (32 - len(wanted))


def test_a_full_chunk_is_plain_and_the_next_token_is_a_second(vocabulary: Vocabulary) -> None:
    full = chunked(vocabulary, "cat " * 30)
    assert full.plain and full.ids_kl.shape == (1, 32)
    assert chunked(vocabulary, "cat " * 31).ids_kl.shape == (2, 32)


def test_a_full_chunk_ends_after_a_near_comma(vocabulary: Vocabulary) -> None:
    cat, comma = vocabulary.token_ids("cat")[0], vocabulary.token_ids(",")[0]
    near = chunked(vocabulary, "cat " * 20 + ", " + "cat " * 12).ids_kl
    assert near[0, 21] == comma and near[0, 22] == vocabulary.tokenizer.eos_id
    assert near[1, 1:13].tolist() == [cat] * 12
    far = chunked(vocabulary, "cat " * 5 + ", " + "cat " * 27).ids_kl
    assert far[0, 30] == cat and far[1, 1:4].tolist() == [cat] * 3
    # a comma that finds the chunk full begins the next, as in the web UI
    late = chunked(vocabulary, "cat " * 30 + ", dog").ids_kl
    assert late[1, 1] == comma


def test_break(vocabulary: Vocabulary) -> None:
    chunks = chunked(vocabulary, "a cat BREAK a <dog1> dog")
    np.testing.assert_array_equal(chunks.ids_kl, vocabulary.encode(["a cat", "a <dog1> dog"]))
    assert len(chunked(vocabulary, "a cat BREAK").ids_kl) == 1
    assert len(chunked(vocabulary, "BREAK a cat").ids_kl) == 2


def test_padding_that_is_not_the_end_of_text(tiny) -> None:
    import dataclasses

    vocabulary = Vocabulary(dataclasses.replace(tiny, pad_token="!"))
    np.testing.assert_array_equal(chunked(vocabulary, "a cat").ids_kl, vocabulary.encode(["a cat"]))


def test_repeating(vocabulary: Vocabulary) -> None:
    twice = chunked(vocabulary, "a cat BREAK (dog)").repeated(4)
    assert twice.ids_kl.shape == twice.weights_kl.shape == (4, 32)
    np.testing.assert_array_equal(twice.ids_kl[:2], twice.ids_kl[2:])


def test_errors(vocabulary: Vocabulary) -> None:
    with pytest.raises(UnknownTokenError, match="unknown token <bird1> in"):
        chunked(vocabulary, "cat " * 40 + "(<bird1>:1.2)")
    with pytest.raises(PromptError, match=f"fills 9 chunks of 30 tokens; {MOST_CHUNKS} is the most"):
        chunked(vocabulary, "cat " * (30 * MOST_CHUNKS + 1))
