"""The checkpoint that a run starts from: the shipped miniature, or what its address names."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

from cns_jax.engine.settings import MINIATURE
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.weights.external_vae import with_vae
from cns_jax.weights.folder import read_folder
from cns_jax.weights.locate import Address, open_source
from cns_jax.weights.pipeline import Source
from cns_jax.weights.tensors import WeightsMismatch


def miniature_folder() -> Path:
    """Where the shipped miniature lies."""
    return Path(str(resources.files("cns_jax.miniature"))) / "model"


def find_source(address: Address) -> Source:
    """The checkpoint at `address`, or the shipped one if its model is "miniature"; so may be the tokenizer.

    Raises WeightsMismatch, also if tokenizer and text encoder differ in size: ids of concepts would miss their rows.
    """
    if address.tokenizer == MINIATURE:  # of single files that were exported from it
        address = dataclasses.replace(address, tokenizer=str(miniature_folder() / "tokenizer"))
    source = read_folder(miniature_folder()) if address.model == MINIATURE else open_source(address)
    if address.vae:
        source = with_vae(source, address.vae)
    ids, rows = load_tokenizer(source.tokenizer).size, source.model.text_encoder.vocab_size
    if ids != rows:
        raise WeightsMismatch(
            f"{source.tokenizer} has {ids} tokens, the text encoder of {address.model} has rows for {rows}; take the "
            "tokenizer that belongs to the model"
        )
    return source
