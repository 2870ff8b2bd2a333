"""Aspect buckets: sizes of about resolution x resolution pixels; a picture that is not square is trained on in the
nearest."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from cns_jax.core.settings import require
from cns_jax.core.types import Concept
from cns_jax.data.images import open_image
from cns_jax.data.views import Size
from cns_jax.engine.settings import RunSettings
from cns_jax.nn.model import Model


def bucket_sizes(model: Model, settings: RunSettings) -> tuple[Size, ...]:
    """(width, height) of the buckets, from half the resolution wide to twice; the square alone without train.buckets.

    Sides are multiples of what the VAE and all levels of the UNet halve evenly (64 pixels for Stable Diffusion), no
    bucket has more pixels than the square. Raises SettingsError if the resolution is not such a multiple.
    """
    resolution = settings.resolution
    if not settings.train.buckets:
        return ((resolution, resolution),)
    unit = model.vae.downsampling * 2 ** (len(model.unet.block_out_channels) - 1)
    require(
        resolution % unit == 0,
        f"resolution={resolution} must be a multiple of {unit} for train.buckets with this model; make it "
        f"{resolution + -resolution % unit}",
    )
    least = -(-resolution // 2 // unit) * unit
    shorts = range(least, resolution + 1, unit)
    sizes = {(short, resolution**2 // short // unit * unit) for short in shorts}
    return tuple(sorted(sizes | {(long, short) for short, long in sizes}))


def bucket_of(path: Path, sizes: tuple[Size, ...]) -> Size:
    """The size whose aspect is nearest to the upright picture's."""
    if len(sizes) == 1:
        return sizes[0]
    width, height = open_image(path).size
    return min(sizes, key=lambda size: abs(math.log(size[0] * height / (size[1] * width))))


def by_bucket(concept: Concept, sizes: tuple[Size, ...]) -> dict[Size, Concept]:
    """The concept with those of its pictures alone that are nearest to a size; sizes without any are left out."""
    found: dict[Size, list[int]] = {}
    for index, path in enumerate(concept.image_paths):
        found.setdefault(bucket_of(path, sizes), []).append(index)

    def of(indexes: list[int]) -> Concept:
        paths, captions = concept.image_paths, concept.captions
        masks = concept.mask_paths or (None,) * len(paths)
        return dataclasses.replace(
            concept,
            image_paths=tuple(paths[i] for i in indexes),
            captions=tuple(captions[i] for i in indexes),
            mask_paths=tuple(masks[i] for i in indexes),
        )

    return {size: of(indexes) for size, indexes in sorted(found.items())}
