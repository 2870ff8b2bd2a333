"""Strict loading: a file's tensors become a parameter tree, or one error lists every difference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from cns_jax.core.tree import Tree, flatten, like
from cns_jax.weights.layout import file_key, file_shape, from_file

_SHOWN = 8

# buffers that older versions wrote; they hold no weights
_IGNORED = re.compile(r"(^|\.)position_ids$")

# names of the VAE's attention before diffusers 0.18
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class WeightsMismatch(ValueError):
    """A file's tensors are not those of the model that its config describes."""


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file; 16-bit floats become float32.

    Raises WeightsMismatch if the file is missing or cut short.
    """
    if not file.exists():
        raise WeightsMismatch(f"{file} does not exist; a diffusers folder keeps the weights of this part there")
    try:
        with safe_open(file, framework="flax") as opened:
            return {
                _new_name(key): _float32(opened.get_tensor(key)) for key in opened.keys() if not _IGNORED.search(key)
            }
    except SafetensorError as error:
        raise WeightsMismatch(f"{file} is not a whole safetensors file ({error}); download or copy it again") from None


def _float32(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.astype(jnp.float32) if jnp.issubdtype(tensor.dtype, jnp.floating) else tensor)


def _new_name(key: str) -> str:
    found = re.search(r"attentions\.0\.(query|key|value|proj_attn)\.(weight|bias)$", key)
    return key.replace(found[1], _OLD_ATTENTION[found[1]]) if found else key


def to_tree(found: Mapping[str, np.ndarray], target: Mapping[str, Any], file: Path) -> Tree:
    """The tensors nested like `target` (a tree of arrays or ShapeDtypeStructs), in our layout.

    Raises WeightsMismatch that names every kind of difference, counted, with the likely cause.
    """
    leaves = flatten(target)
    names = {file_key(name): name for name in leaves}
    wanted = {key: file_shape(name, leaves[name].shape) for key, name in names.items()}
    found = {key: _as_linear(value, wanted.get(key)) for key, value in found.items()}
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [key for key in wanted if key in found and found[key].shape != wanted[key]]
    if missing or unexpected or misshapen:
        shapes = [f"{key} is {found[key].shape}, the config makes it {wanted[key]}" for key in misshapen]
        rows = [_row("missing", missing), _row("unexpected", unexpected), _row("misshapen", shapes)]
        raise WeightsMismatch(f"{file}: {'; '.join(filter(None, rows))}. {_cause(missing, unexpected, misshapen)}")
    broken = [key for key in wanted if not np.isfinite(found[key]).all()]
    if broken:
        raise WeightsMismatch(
            f"{file}: {_row('with NaN or infinity', broken)}. The file is damaged or was saved mid-divergence"
        )
    return like({name: from_file(name, found[key]) for key, name in names.items()}, target)


def _as_linear(tensor: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Old VAE files keep attention projections as 1 x 1 convolutions."""
    if shape is not None and tensor.ndim == 4 and len(shape) == 2 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    return tensor


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
        return "The weights belong to a model of another size: config.json and weights come from different models"
    if missing and not unexpected:
        return "The file is incomplete, or config.json describes a larger model"
    if unexpected and not missing:
        return "config.json describes a smaller model than the weights"
    return "config.json and weights come from different kinds of models"
