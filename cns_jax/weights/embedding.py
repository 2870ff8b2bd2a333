"""Textual-inversion embeddings in: a .safetensors file with one token's row, ours or another program's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cns_jax.text.vocabulary import CONCEPT_TOKEN
from cns_jax.weights.find import PICKLES, refuse_pickle
from cns_jax.weights.tensors import WeightsMismatch, index_file


def embedding_files(path: Path) -> list[Path]:
    """`path`, or the .safetensors files of the folder `path`, by name. Raises WeightsMismatch if there is none."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise WeightsMismatch(f"{path} holds no .safetensors file; one embedding a file is expected")
    return files


def read_embedding(file: Path) -> tuple[str, np.ndarray]:
    """The token of an embedding file and its row, float32 (d,).

    The token is what the file calls its tensor, as in "<cat1>"; where other programs call it emb_params or the like,
    it is the file's name. Raises WeightsMismatch if the file holds something else, or several rows.
    """
    if file.suffix in PICKLES:
        refuse_pickle(file)
    stored, _ = index_file(file)
    if len(stored) != 1:
        raise WeightsMismatch(f"{file} holds {len(stored)} tensors, an embedding of one token is one; is it a model?")
    name, where = next(iter(stored.items()))
    row = np.asarray(where.raw(), np.float32)
    if row.ndim == 2 and len(row) > 1:
        raise WeightsMismatch(f"{file} holds an embedding of {len(row)} tokens; only those of one token are supported")
    if row.shape not in ((row.size,), (1, row.size)):
        raise WeightsMismatch(f"{file}: {name} has the shape {where.shape}; an embedding of one token is (1, width)")
    if not np.isfinite(row).all():
        raise WeightsMismatch(f"{file}: {name} holds NaN or infinity; the file is damaged, or its training diverged")
    stem = re.sub(r"[^a-z0-9_-]+", "_", file.stem.lower())
    return name if CONCEPT_TOKEN.fullmatch(name) else f"<{stem}>", row.reshape(-1)
