"""Train a tokenizer in CLIP's format: byte-level BPE with an end-of-word mark, any text can be encoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cns_jax.text.tokenizer import (
    BOS,
    EOS,
    Tokenizer,
    clip_tokenizer_class,
    load_tokenizer,
    write_tokenizer,
)

END_OF_WORD = "</w>"


def train_tokenizer(
    captions: Iterable[str],
    directory: str | Path,
    vocab_size: int = 1024,
    max_length: int = 32,
    words: Sequence[str] = (),
) -> Tokenizer:
    """Train on `captions`, write a tokenizer folder, tokenizer.json included, and load it.

    The ids are CLIP's order: 256 bytes, 256 bytes with </w>, the merges by rank, begin and end of text last;
    padding is the end of text. There are at most `vocab_size` ids, fewer only if the captions run out of
    pairs.
    words: words that must be one token each whatever their frequency. max_length: positions of the text
    encoder, begin and end token included.
    Raises ValueError if `vocab_size` has no room for bytes, words and the two special tokens, or if an entry
    of `words` is not one word.
    """
    alphabet = _byte_symbols()
    symbols = [*alphabet, *(s + END_OF_WORD for s in alphabet)]
    room = vocab_size - len(symbols) - 2
    learned = _learn_merges(captions, alphabet, max(room, 1))
    merges = _fit(learned, list(words), alphabet, room)
    vocab = dict.fromkeys(symbols) | dict.fromkeys(a + b for a, b in merges) | dict.fromkeys((BOS, EOS))
    ids = {token: i for i, token in enumerate(vocab)}
    write_tokenizer(directory, ids, merges, pad_token=EOS, max_length=max_length)
    loaded = load_tokenizer(directory)
    loaded.backend.save(str(Path(directory) / "tokenizer.json"), pretty=False)
    return loaded


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins of bytes, in the order of GPT-2 and CLIP: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(len(rest))]


def _word_splitter() -> tuple[Any, Any]:
    """transformers' own normalizer and pre-tokenizer of CLIP."""
    backend = clip_tokenizer_class()().backend_tokenizer
    return backend.normalizer, backend.pre_tokenizer


def _learn_merges(captions: Iterable[str], alphabet: list[str], count: int) -> list[tuple[str, str]]:
    """The `count` most frequent merges, greedily, by the `tokenizers` trainer."""
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    backend = Backend(BPE(end_of_word_suffix=END_OF_WORD))
    backend.normalizer, backend.pre_tokenizer = _word_splitter()
    # The alphabet counts as vocabulary: ask for enough, cut below. Symbols with </w> would get ids in the
    # order of a hash table, and ids break ties between pairs: as special tokens they are fixed, so that
    # training again gives the same merges.
    trainer = BpeTrainer(
        vocab_size=count + 2 * len(alphabet),
        min_frequency=1,
        initial_alphabet=alphabet,
        special_tokens=[symbol + END_OF_WORD for symbol in alphabet],
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    return [(a, b) for a, b in merges][:count]


def _fit(learned: list[tuple[str, str]], words: list[str], alphabet: list[str], room: int) -> list[tuple[str, str]]:
    """As many learned merges as leave room for the merges that make each of `words` one token."""
    fixed = 2 * len(alphabet) + 2
    split = [_symbols_of(word) for word in words]
    kept = len(learned)
    while True:
        merges = learned[:kept]
        for symbols in split:
            # ranks behind all others: what was one token before stays one token
            pieces = _apply(merges, symbols)
            while len(pieces) > 1:
                merges.append((pieces[0], pieces[1]))
                pieces = [pieces[0] + pieces[1], *pieces[2:]]
        excess = len({a + b for a, b in merges}) - room
        if excess <= 0:
            return merges
        if kept == 0:
            raise ValueError(
                f"vocab_size {room + fixed} is too small: bytes and special tokens take {fixed} ids, "
                f"{len(words)} words of one token take {room + excess}; raise it to {room + excess + fixed}"
            )
        kept = max(0, kept - excess)


def _symbols_of(word: str) -> list[str]:
    normalizer, pre_tokenizer = _word_splitter()
    parts = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(word))
    if len(parts) != 1:
        raise ValueError(f"{word!r} is not one word: CLIP's rule cuts it into {[p for p, _ in parts]}")
    symbols = list(parts[0][0])
    return [*symbols[:-1], symbols[-1] + END_OF_WORD]


def _apply(merges: list[tuple[str, str]], symbols: list[str]) -> list[str]:
    """Byte-pair encoding of one word: always the pair of lowest rank, everywhere in the word."""
    rank = {pair: i for i, pair in reversed(list(enumerate(merges)))}
    while len(symbols) > 1:
        best = min(zip(symbols, symbols[1:], strict=False), key=lambda pair: rank.get(pair, len(merges)))
        if best not in rank:
            break
        merged: list[str] = []
        for symbol in symbols:
            if merged and (merged[-1], symbol) == best:
                merged[-1] += symbol
            else:
                merged.append(symbol)
        symbols = merged
    return symbols
