"""Strict loading: stored tensors become a parameter tree, or one error lists every difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax.core.casting import in_c_order
from cns_jax.core.tree import Fingerprint, Tree, flatten, like
from cns_jax.weights.layout import file_key, file_shape, from_file
from cns_jax.weights.tensors import Stored, WeightsMismatch, index_file, read_each

_SHOWN = 8

# buffers that older versions wrote; they hold no weights
_IGNORED = re.compile(r"(^|\.)position_ids$")

# names of the VAE's attention before diffusers 0.18
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

Keep = Callable[[str, np.ndarray], Any]


def with_new_names(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors under today's diffusers names, without buffers."""
    return {_new_name(key): where for key, where in stored.items() if not _IGNORED.search(key)}


def _new_name(key: str) -> str:
    found = re.search(r"attentions\.0\.(query|key|value|proj_attn)\.(weight|bias)$", key)
    return key.replace(found[1], _OLD_ATTENTION[found[1]]) if found else key


def check(stored: Mapping[str, Stored], target: Mapping[str, Any], file: Path) -> None:
    """Compare names and shapes with `target` (a tree of arrays or ShapeDtypeStructs); no weights are read.

    Raises WeightsMismatch naming `file` and every kind of difference, counted, with the likely cause.
    """
    wanted = {file_key(name): file_shape(name, leaf.shape) for name, leaf in flatten(target).items()}
    missing = [key for key in wanted if key not in stored]
    unexpected = [key for key in stored if key not in wanted]
    misshapen = [key for key in wanted if key in stored and _as_linear(stored[key].shape, wanted[key]) != wanted[key]]
    if missing or unexpected or misshapen:
        shapes = [f"{key} is {stored[key].shape}, the config makes it {wanted[key]}" for key in misshapen]
        rows = [_row("missing", missing), _row("unexpected", unexpected), _row("misshapen", shapes)]
        raise WeightsMismatch(f"{file}: {'; '.join(filter(None, rows))}. {_cause(missing, unexpected, misshapen)}")


def load(
    stored: Mapping[str, Stored], target: Mapping[str, Any], file: Path, keep: Keep | None = None, prefix: str = ""
) -> tuple[Tree, str]:
    """The tensors nested like `target`, with our axes, and their fingerprint (of the float32 values).

    keep(prefix + name, float32 leaf in C order): what to hold of it; one tensor is in memory beside what is held of
    the earlier ones. None: all of them, in the file's order of memory, so that writing them again copies nothing.
    Raises WeightsMismatch for what `check` finds, and for NaN or infinity.
    """
    check(stored, target, file)
    kept, broken, found, leaves = {}, [], Fingerprint(), flatten(target)
    tensors = read_each(stored[file_key(name)] for name in leaves)
    for (name, leaf), tensor in zip(leaves.items(), tensors, strict=True):
        if not np.isfinite(tensor).all():
            broken.append(file_key(name))
        as_stored = from_file(name, tensor.reshape(file_shape(name, leaf.shape)))
        array = in_c_order(as_stored)
        found.add(name, array)
        kept[name] = keep(prefix + name, array) if keep else as_stored
    if broken:
        raise WeightsMismatch(
            f"{file}: {_row('with NaN or infinity', broken)}. The file is damaged or was saved mid-divergence"
        )
    return like(kept, target), found.hexdigest()


def load_file(file: Path, target: Mapping[str, Any]) -> Tree:
    """A whole safetensors file as the tree `target`."""
    return load(with_new_names(index_file(file)[0]), target, file)[0]


def _as_linear(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Old VAE files keep attention projections as 1 x 1 convolutions."""
    return shape[:2] if len(shape) == 4 and len(wanted) == 2 and shape[2:] == (1, 1) else shape


def _row(kind: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} keys {kind}: {', '.join(keys[:_SHOWN])}{more}"


def _cause(missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    if any("add_embedding" in key for key in unexpected):
        return "These are weights of SDXL; Stable Diffusion 1.x and 2.x are supported"
    if any("lora" in key for key in unexpected):
        return "The file holds LoRA adapters; fuse them into the model first"
    if misshapen and not missing and not unexpected:
        return "The weights belong to a model of another size than the configuration describes"
    if missing and not unexpected:
        return "The file is incomplete, or the configuration describes a larger model"
    if unexpected and not missing:
        return "The configuration describes a smaller model than the weights"
    return "Configuration and weights come from different kinds of models"
