"""CLIP's tokenizer as transformers reads it, and the files it is made of.

Token ids come from transformers' CLIPTokenizer, of which only the `tokenizers` backend is kept, so neither loading nor
encoding needs torch. Where that backend lies in the folder (tokenizer.json), transformers is not imported either.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_jax.core.files import read_json

if TYPE_CHECKING:
    import tokenizers

BOS = "<|startoftext|>"
EOS = "<|endoftext|>"
CLIP_MAX_LENGTH = 77
_ENDLESS = 1_000_000
_END = "</w>"

Merges = Sequence[tuple[str, str]]


class TokenizerFilesError(ValueError):
    """A tokenizer folder lacks a file, or its files are not those of a CLIP tokenizer."""


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A loaded CLIP tokenizer; host only, never changed after loading.

    backend: the `tokenizers.Tokenizer` that does the work. size: number of ids, all below it. max_length:
    positions of the text encoder, begin and end token included. pad_token: what a short prompt is filled with
    (SD-1.x: end of text, SD-2.x: "!").
    """

    backend: tokenizers.Tokenizer
    bos_token: str
    eos_token: str
    pad_token: str
    max_length: int

    @property
    def size(self) -> int:
        """Number of ids, added tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def bos_id(self) -> int:
        """Id of the begin token."""
        return self._id(self.bos_token)

    @property
    def eos_id(self) -> int:
        """Id of the end of text."""
        return self._id(self.eos_token)

    @property
    def pad_id(self) -> int:
        """Id of the padding."""
        return self._id(self.pad_token)

    def _id(self, token: str) -> int:
        found = self.backend.token_to_id(token)
        if found is None:
            raise TokenizerFilesError(f"the special token {token!r} is not in the vocabulary")
        return found

    def has(self, token: str) -> bool:
        """Whether `token` is one entry of the vocabulary, added tokens included."""
        return self.backend.token_to_id(token) is not None

    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` without begin and end token."""
        return tuple(self.backend.encode(text, add_special_tokens=False).ids)

    def pieces(self, text: str) -> tuple[str, ...]:
        """The tokens `text` is cut into, as written in vocab.json."""
        return tuple(self.backend.encode(text, add_special_tokens=False).tokens)

    @property
    def words(self) -> list[str]:
        """The words of letters a-z that are one token."""
        ends = (token.removesuffix(_END) for token in self.backend.get_vocab() if token.endswith(_END))
        return sorted(word for word in ends if word.isascii() and word.isalpha())

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""
        text = self.backend.decode([int(i) for i in ids], skip_special_tokens=True)
        return text.replace(_END, " ").strip()

    def with_tokens(self, tokens: Sequence[str]) -> Tokenizer:
        """A copy in which each of `tokens` is one token, matched anywhere; ids continue from `size`."""
        backend = copy.deepcopy(self.backend)
        backend.add_tokens(list(tokens))
        return Tokenizer(backend, self.bos_token, self.eos_token, self.pad_token, self.max_length)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """Read a CLIP tokenizer folder: vocab.json and merges.txt with transformers, or tokenizer.json by itself, which
    saves the second that importing transformers takes.

    Raises TokenizerFilesError if a file is missing or the folder holds another kind of tokenizer.
    """
    directory = Path(directory)
    _check_folder(directory)
    return _of_one_file(directory) or _of_transformers(directory)


def _of_one_file(directory: Path) -> Tokenizer | None:
    """None unless the folder says all of it: the backend, and in tokenizer_config.json the rest."""
    file, config = directory / "tokenizer.json", directory / "tokenizer_config.json"
    if not (file.is_file() and config.is_file()):
        return None
    told = read_json(config)
    names = [told.get(name) for name in ("bos_token", "eos_token", "pad_token")]
    bos, eos, pad = (name.get("content") if isinstance(name, dict) else name for name in names)
    length = told.get("model_max_length")
    if not (isinstance(bos, str) and isinstance(eos, str) and isinstance(pad, str) and isinstance(length, int)):
        return None
    if length > _ENDLESS:
        return None
    import tokenizers

    return _tokenizer(tokenizers.Tokenizer.from_file(str(file)), bos, eos, pad, length)


def _of_transformers(directory: Path) -> Tokenizer:
    loaded = clip_tokenizer_class().from_pretrained(str(directory), local_files_only=True)
    # transformers answers a missing model_max_length with 1e30
    max_length = int(loaded.model_max_length) if loaded.model_max_length < _ENDLESS else CLIP_MAX_LENGTH
    # a deep copy: transformers wraps the backend's decode and sets its truncation and padding between calls
    backend = copy.deepcopy(loaded.backend_tokenizer)
    return _tokenizer(backend, loaded.bos_token, loaded.eos_token, loaded.pad_token, max_length)


def _tokenizer(backend: tokenizers.Tokenizer, bos: str, eos: str, pad: str, max_length: int) -> Tokenizer:
    backend.no_truncation()
    backend.no_padding()
    return Tokenizer(backend, bos, eos, pad, max_length)


def clip_tokenizer_class() -> Any:
    """transformers' CLIPTokenizer, imported without torch and without its remark that torch is missing."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import CLIPTokenizer

    return CLIPTokenizer


def _check_folder(directory: Path) -> None:
    if not directory.is_dir():
        raise TokenizerFilesError(f"{directory}: no such folder; it should hold vocab.json and merges.txt")
    if not (directory / "tokenizer.json").is_file():
        missing = [name for name in ("vocab.json", "merges.txt") if not (directory / name).is_file()]
        if missing:
            # transformers would go on with an empty vocabulary
            raise TokenizerFilesError(f"{directory}: {' and '.join(missing)} missing; copy the whole tokenizer folder")
    config = directory / "tokenizer_config.json"
    if config.is_file():
        kind = read_json(config).get("tokenizer_class", "CLIPTokenizer")
        if kind not in ("CLIPTokenizer", "CLIPTokenizerFast"):
            raise TokenizerFilesError(f"{config}: tokenizer_class is {kind!r}, expected CLIPTokenizer")


def bpe_tables(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int]]:
    """(vocabulary of the BPE, merges by rank, tokens added on top of it with their ids)."""
    state = json.loads(tokenizer.backend.to_str())
    vocab = state["model"]["vocab"]
    merges = [(a, b) for a, b in state["model"]["merges"]]
    added = {t["content"]: t["id"] for t in state["added_tokens"] if t["content"] not in vocab}
    return vocab, merges, added


def write_tokenizer(
    directory: str | Path,
    vocab: Mapping[str, int],
    merges: Merges,
    *,
    pad_token: str = EOS,
    max_length: int = CLIP_MAX_LENGTH,
    added: Mapping[str, int] | None = None,
) -> None:
    """Write a CLIP tokenizer folder as SD checkpoints have it, for any version of transformers: without
    tokenizer.json, whose form changes.

    added: token -> id of tokens on top of `vocab`; the ids must continue from len(vocab) without a gap.
    """
    added = dict(added or {})
    if sorted(added.values()) != list(range(len(vocab), len(vocab) + len(added))):
        raise ValueError(f"added tokens must have the ids from {len(vocab)} on without a gap, got {added}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").unlink(missing_ok=True)  # of what was there; it would be read first
    # plain strings: transformers 5 refuses dicts here as soon as added_tokens_decoder is present
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad_token}
    config: dict[str, Any] = {"tokenizer_class": "CLIPTokenizer", "model_max_length": max_length, **special}
    config |= {"add_prefix_space": False, "do_lower_case": True, "errors": "replace"}
    if added:
        entries = {vocab[BOS]: _entry(BOS, True), vocab[EOS]: _entry(EOS, True)}
        entries |= {i: _entry(token, False) for token, i in added.items()}
        config["added_tokens_decoder"] = {str(i): entries[i] for i in sorted(entries)}
        _write_json(directory / "added_tokens.json", added)
    _write_json(directory / "vocab.json", dict(sorted(vocab.items(), key=lambda item: item[1])))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(directory / "special_tokens_map.json", special)
    _write_json(directory / "tokenizer_config.json", config)


def drop_last_token(tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write the folder of `tokenizer` without the token that was added to it last."""
    vocab, merges, added = bpe_tables(tokenizer)
    last = max(added, key=lambda token: added[token])
    write_tokenizer(
        directory,
        vocab,
        merges,
        pad_token=tokenizer.pad_token,
        max_length=tokenizer.max_length,
        added={token: i for token, i in added.items() if token != last},
    )


def _entry(token: str, special: bool) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"content": token, **flags, "special": special}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
