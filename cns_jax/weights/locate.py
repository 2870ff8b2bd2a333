"""A checkpoint by name: a diffusers folder, a single .safetensors file, or a repository of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.weights.find import PICKLES, refuse_pickle
from cns_jax.weights.folder import WEIGHT_FILES, read_folder
from cns_jax.weights.pipeline import Source
from cns_jax.weights.single_file import read_single_file
from cns_jax.weights.tensors import WeightsMismatch

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CLIP, _SECOND = "openai/clip-vit-large-patch14", "stabilityai/stable-diffusion-2-1"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


@dataclass(frozen=True)
class Address:
    """What the user says of a checkpoint.

    model: a diffusers folder, a .safetensors file, or "owner/name" on the hub. variant: of the weight files
    ("fp16"). tokenizer: a CLIP tokenizer folder or a hub repository, for single files, which hold none.
    prediction_type: "epsilon" or "v_prediction", where the checkpoint does not say it right. vae: another VAE (see
    `with_vae`; empty: the checkpoint's own).
    """

    model: str
    variant: str = ""
    tokenizer: str = ""
    prediction_type: str = ""
    vae: str = ""

    def __post_init__(self) -> None:
        for name in ("model", "tokenizer", "vae"):
            object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))


def open_source(address: Address) -> Source:
    """The checkpoint at `address`; hub repositories are downloaded once and found again without a network.

    Raises WeightsMismatch saying what is there, what is wrong with it and what to do.
    """
    path = Path(address.model)
    if path.is_dir():
        if not (path / "model_index.json").exists():
            _explain_folder(path)
        return read_folder(path, address.variant, address.prediction_type)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise WeightsMismatch(f"model={address.model!r}: there is no such file")
        return _single_file(path, address)
    if path.is_file():
        if path.suffix in PICKLES:
            refuse_pickle(path)
        raise WeightsMismatch(f"model={address.model!r} is neither a diffusers folder nor a .safetensors file")
    if not HUB_ID.fullmatch(address.model):
        raise WeightsMismatch(
            f"model={address.model!r} does not exist; give 'miniature', a diffusers folder, a .safetensors file, or "
            "owner/name of a repository on the Hugging Face hub"
        )
    try:
        folder = download(address.model, _weight_patterns(address.variant))
    except WeightsMismatch as error:
        raise WeightsMismatch(f"there is no folder {path.absolute()}, and on the hub: {error}") from None
    try:
        return read_folder(folder, address.variant, address.prediction_type)
    except WeightsMismatch as error:
        raise WeightsMismatch(
            f"{address.model} on the hub: {error}. If the repository has the weights as a variant only, say which with "
            "variant=...; if a download was cut short, run it again where there is a network"
        ) from None


def _single_file(path: Path, address: Address) -> Source:
    source = read_single_file(path, Path(), address.prediction_type)
    second = source.model.text_encoder.hidden_act == "gelu"
    tokenizer = _tokenizer(path, address.tokenizer, _SECOND if second else _CLIP)
    pad = load_tokenizer(tokenizer).pad_token
    if second and pad != "!":
        raise WeightsMismatch(
            f"{tokenizer}: SD-2.x fills short prompts with '!', this tokenizer with {pad!r}; take the tokenizer folder "
            f'of {_SECOND}, or set "pad_token": "!" in a copy of its tokenizer_config.json and special_tokens_map.json'
        )
    return dataclasses.replace(source, tokenizer=tokenizer)


def _explain_folder(path: Path) -> None:
    files = sorted(path.iterdir())
    whole = [p for p in files if p.suffix == ".safetensors"]
    pickled = [p for p in files if p.suffix in PICKLES]
    if pickled and not whole:
        refuse_pickle(pickled[0])
    hint = f"; for the single file in it give model={str(whole[0])!r}" if whole else ""
    raise WeightsMismatch(f"{path} has no model_index.json, so it is not a diffusers folder{hint}")


def _weight_patterns(variant: str) -> list[str]:
    dotted = f".{variant}" if variant else ""
    patterns = ["model_index.json", "scheduler/*", *(f"tokenizer/{name}" for name in _TOKENIZER_FILES)]
    for part, name in WEIGHT_FILES.items():
        stem = name.removesuffix(".safetensors")
        patterns += [f"{part}/config.json", f"{part}/{stem}{dotted}.safetensors"]
        patterns += [f"{part}/{stem}{dotted}-*.safetensors", f"{part}/{stem}.safetensors.index{dotted}.json"]
    return patterns


def download(repository: str, patterns: list[str]) -> Path:
    """The local folder of a hub repository, downloaded into huggingface_hub's cache if it is not there.

    Raises WeightsMismatch saying what to download and where to put it when the hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, HfHubHTTPError):
            reason = f"the hub refuses it ({str(error).splitlines()[0]}); is the name right, is a login needed"
        else:
            reason = "it is not in the cache and the hub cannot be reached"
        raise WeightsMismatch(
            f"{repository}: {reason}. On a machine with a network run: hf download {repository} "
            f"--include {' '.join(repr(p) for p in patterns)} --local-dir {repository.split('/')[1]}; copy that folder "
            f"here and give its path instead. (Cache: {constants.HF_HUB_CACHE})"
        ) from None


def _tokenizer(file: Path, given: str, usual: str) -> Path:
    """The tokenizer of a single file: given, beside the file, or from the hub's cache (of `usual`)."""
    beside = file.parent / "tokenizer"
    folder = Path(given) if given else beside
    if folder.is_dir():
        return folder
    repository = given or usual
    if not HUB_ID.fullmatch(repository):
        raise WeightsMismatch(f"tokenizer={given!r} is not a folder; give one with vocab.json and merges.txt")
    try:
        found = download(repository, [*_TOKENIZER_FILES, *(f"tokenizer/{name}" for name in _TOKENIZER_FILES)])
    except WeightsMismatch as error:
        raise WeightsMismatch(
            f"{file} holds no tokenizer, and none was found: put CLIP's tokenizer folder (vocab.json, merges.txt) at "
            f"{beside}, or give it with tokenizer=FOLDER. {error}"
        ) from None
    return found / "tokenizer" if (found / "tokenizer").is_dir() else found
