"""Class words, start words and captions against the tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cns_jax.core.types import Concept
from cns_jax.data.folder import DataError
from cns_jax.data.words import check_words
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.train_bpe import train_tokenizer
from cns_jax.text.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    folder = tmp_path_factory.mktemp("words")
    known = "sneaker sneakers cat animal toy watercolor café".split()
    train_tokenizer(["a photo of a cat and a dog"] * 9, folder, vocab_size=700, max_length=20, words=known)
    return Vocabulary(load_tokenizer(folder), ("<a>", "<b>"))


def concept(word: str, init: str | None = None, caption: str | None = None) -> Concept:
    return Concept("a", "<a>", word, "subject", (Path("a/1.png"),), (caption,), init)


def said(vocabulary: Vocabulary, *concepts: Concept) -> str:
    with pytest.raises(DataError) as caught:
        check_words(concepts, vocabulary)
    return str(caught.value)


@pytest.mark.parametrize("word", ["cat", "Cat", "café", "animal cat"])
def test_known_words(vocabulary: Vocabulary, word: str, caplog: pytest.LogCaptureFixture) -> None:
    check_words([concept(word)], vocabulary)
    assert not caplog.messages


@pytest.mark.parametrize("word", ["xylophonist", "猫", "кот", "ёж", "qzx", "123", "\u200b"])
def test_words_of_which_no_piece_is_known(vocabulary: Vocabulary, word: str) -> None:
    text = said(vocabulary, concept(word))
    assert f"a: the model does not know the class word {word!r} (the tokenizer breaks it into" in text
    assert "broader: animal, toy, cat" in text
    assert text.endswith(
        'write  class_word = "..."  into concept.toml beside its pictures, or give --concept="a: class_word=..."'
    )


def test_near_words_are_listed(vocabulary: Vocabulary) -> None:
    assert "near: sneakers, sneaker; broader" in said(vocabulary, concept("snaekers"))
    init = said(vocabulary, concept("cat", "sneekers"))
    assert "a: init_word 'sneekers' is not one token; choose a word that it knows (near: sneakers" in init
    assert init.endswith('or give --concept="a: init_word=..."')


def test_a_typing_error_that_passes_is_told(vocabulary: Vocabulary, caplog: pytest.LogCaptureFixture) -> None:
    check_words([concept("sneakerss")], vocabulary)
    assert caplog.messages == [
        "a: the class word 'sneakerss' is not one word to the model; did you mean sneakers or sneaker?"
    ]


def test_captions_with_tokens_of_no_concept(vocabulary: Vocabulary) -> None:
    check_words([concept("cat", caption="a <a> cat beside <b>")], vocabulary)
    text = said(vocabulary, concept("cat", caption="a cat <lora>"), concept("123"))
    assert "a/1.png: its caption 'a cat <lora>' has a token of no concept: unknown token <lora>" in text
    assert "class word '123'" in text
