"""A tiny tokenizer trained once, and the real CLIP BPE where its file is at hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cns_jax.text.tokenizer import BOS, EOS, Tokenizer, load_tokenizer, write_tokenizer
from cns_jax.text.train_bpe import train_tokenizer

COLOURS = "red blue green yellow pink purple white black brown orange".split()
NOUNS = "cat dog fox bear rabbit owl ball car cup house tree boat".split()
WORDS = ("giraffe", "umbrella", "watercolour")


@pytest.fixture(scope="session")
def captions() -> list[str]:
    return [f"a photo of a {c} {n} on the beach at night, painted." for c in COLOURS for n in NOUNS]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, captions) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(captions, folder, vocab_size=1024, max_length=32, words=WORDS)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder) -> Tokenizer:
    return load_tokenizer(tiny_folder)


@pytest.fixture(scope="session")
def clip_merges(shared) -> Path:
    source = shared / "data" / "clip" / "bpe_simple_vocab_16e6.txt.gz"
    if not source.is_file():
        pytest.skip(f"the CLIP merges are not at {source}; set CNS_JAX_SHARED to the folder that holds data/clip")
    return source


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, clip_merges) -> Path:
    """CLIP's own vocabulary, rebuilt from its merges as OpenAI's tokenizer does."""
    lines = gzip.decompress(clip_merges.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(a, b) for a, b in (line.split() for line in lines)]
    symbols = [chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    symbols += [chr(256 + n) for n in range(256 - len(symbols))]
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in merges), BOS, EOS]
    folder = tmp_path_factory.mktemp("clip")
    write_tokenizer(folder, {token: i for i, token in enumerate(tokens)}, merges)
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder) -> Tokenizer:
    return load_tokenizer(clip_folder)
