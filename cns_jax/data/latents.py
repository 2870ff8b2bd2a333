"""Views encoded once: VAE moments, kept on disk by what they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from cns_jax.core.batches import in_batches
from cns_jax.core.files import digest, kept_array, name_of
from cns_jax.core.xla.compiling import jit
from cns_jax.data.images import open_image
from cns_jax.data.masks import mask_views
from cns_jax.data.views import Size, first_view, views
from cns_jax.nn.model import Model


@jit(static_argnames="model")
def _encode(vae_params: Any, images_bhwc: jax.Array, *, model: Model) -> jax.Array:
    return model.encode_image(vae_params, images_bhwc)


def encode_views(model: Model, vae_params: Any, images_vhwc: np.ndarray, batch: int = 4) -> np.ndarray:
    """Unscaled moments float32 (v, h, w, 2 * latent channels) of images in [-1, 1]."""
    return in_batches(partial(_encode, vae_params, model=model), batch, images_vhwc).astype(np.float32)


@dataclass(frozen=True)
class LatentCache:
    """Moments of pictures' views, on disk under a key of the picture's content, the views, the size and the VAE.

    vae_id: the weights' fingerprint. size (width, height), count, seed, flip: of a picture's views (`data.views`).
    """

    directory: Path
    model: Model
    vae_params: Any
    vae_id: str
    size: Size
    count: int
    seed: int
    flip: bool

    def moments(self, path: Path) -> np.ndarray:
        """Of one picture's views, encoded now or read back; a damaged file is made anew."""

        def encode() -> np.ndarray:
            images = views(path, self.size, self.count, self.seed, self.flip)
            return encode_views(self.model, self.vae_params, images, self._batch)

        return kept_array(self._file(path), "moments", encode)

    def masks(self, path: Path, mask: Image.Image) -> np.ndarray:
        """Of one picture's views, float32 (views, h, w) in [0, 1], at the latents' size. mask: see `data.masks`."""
        height, width, _ = self.model.latent_shape(*reversed(self.size))
        return mask_views(path, mask, self.size, (width, height), self.count, self.seed, self.flip)

    def means(self, paths: Sequence[Path]) -> np.ndarray:
        """Scaled latents float32 (n, h, w, c) of the pictures' first views: the mean of what the encoder says.

        They are kept together, in one file.
        """

        def encode() -> np.ndarray:
            parts = []
            for start in range(0, len(paths), self._batch):
                images = np.stack([first_view(open_image(p), self.size) for p in paths[start : start + self._batch]])
                parts.append(encode_views(self.model, self.vae_params, images, self._batch))
            means, _ = np.split(np.concatenate(parts), 2, axis=-1)
            return means * np.float32(self.model.vae.scaling_factor)

        parts = ("means", *map(digest, paths), self.size, self.vae_id, self.model.compute)
        return kept_array(self.directory / f"{name_of(parts)}.safetensors", "means", encode)

    def ahead(self, paths: Iterable[Path]) -> None:
        """Begin to compile what encodes the pictures, unless all are kept already."""
        if not all(self._file(path).exists() for path in paths):
            images = jax.ShapeDtypeStruct((self._batch, *reversed(self.size), 3), np.float32)
            _encode.ahead(self.vae_params, images, model=self.model)

    @property
    def _batch(self) -> int:
        return min(self.count, 4)

    def _file(self, path: Path) -> Path:
        parts = (digest(path), self.size, self.count, self.seed, self.flip, self.vae_id, self.model.compute)
        return self.directory / f"{name_of(parts)}.safetensors"
