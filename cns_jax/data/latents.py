"""Views encoded once: VAE moments, kept on disk by what they depend on."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cns_jax.core.batches import in_batches
from cns_jax.core.compiling import jit
from cns_jax.core.files import replacing
from cns_jax.data.views import content_hash, views
from cns_jax.nn.model import Model


@jit(static_argnames="model")
def _encode(vae_params: Any, images_bhwc: jax.Array, *, model: Model) -> jax.Array:
    return model.encode_image(vae_params, images_bhwc)


def encode_views(model: Model, vae_params: Any, images_vhwc: np.ndarray, batch: int = 4) -> np.ndarray:
    """Unscaled moments float32 (v, h, w, 2 * latent channels) of images in [-1, 1]."""
    return in_batches(partial(_encode, vae_params, model=model), batch, images_vhwc).astype(np.float32)


class LatentCache:
    """Moments on disk, keyed by the picture's content, the views, the size and the VAE; damaged files are redone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def moments(
        self, model: Model, vae_params: Any, vae_id: str, path: Path, size: int, count: int, seed: int, flip: bool
    ) -> np.ndarray:
        """Moments of `count` views of one picture, encoded now or read back. vae_id: the weights' fingerprint."""
        parts = (content_hash(path), size, count, seed, flip, vae_id, model.compute)
        file = self.directory / (hashlib.sha256(repr(parts).encode()).hexdigest()[:24] + ".safetensors")
        try:
            return load_file(file)["moments"]
        except (FileNotFoundError, SafetensorError, KeyError):
            moments = encode_views(model, vae_params, views(path, size, count, seed, flip), min(count, 4))
            with replacing(file) as temporary:
                save_file({"moments": moments}, temporary)
            return moments
