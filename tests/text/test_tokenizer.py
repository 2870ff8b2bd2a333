"""Training, reading and writing of CLIP tokenizers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from cns_jax.text.tokenizer import BOS, EOS, TokenizerFilesError, bpe_tables, load_tokenizer, write_tokenizer
from cns_jax.text.train_bpe import train_tokenizer

WORDS = ("giraffe", "umbrella", "watercolour")
OPEN = [
    "hippopotamus",
    "été à Zürich",
    "😀 cat's 42nd",
    "日本",
    "tab\tand  spaces",
    "<|x|>~^",
    "naïve-looking",
]


def test_layout_is_that_of_clip(tiny, tiny_folder):
    vocab = json.loads((tiny_folder / "vocab.json").read_text(encoding="utf-8"))
    tokens = sorted(vocab, key=vocab.get)
    assert list(vocab.values()) == list(range(len(vocab)))
    assert tokens[0] == "!" and tokens[256] == "!</w>" and tokens[-2:] == [BOS, EOS]
    assert all(t.endswith("</w>") for t in tokens[256:512])
    assert (tiny.bos_id, tiny.eos_id, tiny.size) == (len(vocab) - 2, len(vocab) - 1, len(vocab))
    assert tiny.pad_id == tiny.eos_id and tiny.max_length == 32


def test_extra_words_and_frequent_words_are_one_token(tiny):
    for word in (*WORDS, "photo", "rabbit", "purple", "beach"):
        assert tiny.pieces(word) == (f"{word}</w>",)


@pytest.mark.parametrize("text", OPEN)
def test_any_text_comes_back(tiny, text):
    squeezed = "".join(text.lower().split())
    assert "".join(tiny.decode(tiny.ids(text)).split()) == squeezed


def test_extra_words_fit_a_vocabulary_that_is_full(tmp_path):
    text = ["alpha beta gamma delta epsilon zeta eta theta"] * 3
    tokenizer = train_tokenizer(text, tmp_path, vocab_size=530, words=["giraffe", "epsilon"])
    assert tokenizer.size <= 530
    assert len(tokenizer.ids("giraffe")) == len(tokenizer.ids("epsilon")) == 1
    with pytest.raises(ValueError, match="raise it to"):
        train_tokenizer(text, tmp_path, vocab_size=516, words=["giraffe"])


def test_extra_words_must_be_words(tmp_path):
    with pytest.raises(ValueError, match="t-shirt"):
        train_tokenizer(["a"], tmp_path, words=["t-shirt"])


def test_training_is_repeatable(tmp_path):
    """Many pairs of equal frequency, so that an order taken from a hash table would show."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefgh"), 5)) for _ in range(300)]
    text = [" ".join(random.choice(words, 8)) for _ in range(200)]
    for run in ("first", "second", "third"):
        train_tokenizer(text, tmp_path / run, words=WORDS)
    files = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    for name in files:
        assert len({(tmp_path / run / name).read_bytes() for run in ("first", "second", "third")}) == 1


def test_written_again_it_is_the_same(tiny, tmp_path):
    vocab, merges, added = bpe_tables(tiny)
    (tmp_path / "tokenizer.json").write_text("of another tokenizer")
    write_tokenizer(tmp_path, vocab, merges, max_length=32, added=added)
    again = load_tokenizer(tmp_path)
    assert [again.ids(t) for t in OPEN] == [tiny.ids(t) for t in OPEN]
    assert again.backend.to_str() == tiny.backend.to_str()  # transformers', and what tokenizers read by itself


@pytest.mark.parametrize(
    "lacks",
    [{"pad_token": None}, {"model_max_length": 10**30}, {"bos_token": None}],
    ids=lambda value: next(iter(value)),
)
def test_what_the_one_file_does_not_say_transformers_does(tiny_folder, tiny, tmp_path, lacks):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "special_tokens_map.json").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | lacks
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    read = load_tokenizer(tmp_path)
    assert (read.bos_token, read.pad_token) == (tiny.bos_token, tiny.pad_token)
    assert read.max_length == (77 if "model_max_length" in lacks else 32)


def test_added_ids_without_gap(tiny, tmp_path):
    vocab, merges, _ = bpe_tables(tiny)
    with pytest.raises(ValueError, match="without a gap"):
        write_tokenizer(tmp_path, vocab, merges, added={"<cat1>": len(vocab) + 1})


def test_real_clip_ids(clip):
    assert (clip.size, clip.bos_id, clip.eos_id, clip.max_length) == (49408, 49406, 49407, 77)
    # ids of OpenAI's tokenizer
    assert clip.ids("a photo of a cat") == (320, 1125, 539, 320, 2368)
    assert clip.ids("Hello, world!") == (3306, 267, 1002, 256)


def test_missing_files_are_named(tiny_folder, tmp_path):
    with pytest.raises(TokenizerFilesError, match="no such folder"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "vocab.json").write_bytes((tiny_folder / "vocab.json").read_bytes())
    with pytest.raises(TokenizerFilesError, match="merges.txt missing"):
        load_tokenizer(tmp_path)


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(TokenizerFilesError, match="T5Tokenizer"):
        load_tokenizer(tmp_path)


SCRIPT = """
import sys
for name in {hide}: sys.modules[name] = None
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
assert sys.modules.get("transformers") is None
ids = Vocabulary(load_tokenizer({folder!r}), ("<cat1>",)).encode(["a photo of <cat1> cat"])
assert ids.shape == (1, 32)
assert sys.modules.get("torch") is None, "torch was imported"
"""


@pytest.mark.parametrize("hide", [[], ["torch"]], ids=["torch installed or not", "torch absent"])
def test_no_torch_at_run_time(tiny_folder, tmp_path, hide):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").unlink()
    runs(SCRIPT.format(hide=hide, folder=str(tmp_path)))


def test_one_file_needs_no_transformers(tiny_folder):
    """Whose import takes a second of every start."""
    runs(SCRIPT.format(hide=["transformers", "torch"], folder=str(tiny_folder)))


def runs(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PyTorch" not in done.stderr
