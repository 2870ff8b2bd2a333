"""The shapes of a run's data, the same for all concepts, so that they share compilations; what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cns_jax.core.types import Concept, ConceptData
from cns_jax.data.folder import DataError
from cns_jax.data.masks import DARK, brightest, open_alpha, open_mask
from cns_jax.data.views import Size
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.buckets import bucket_of, bucket_sizes, by_bucket
from cns_jax.engine.teach.own_priors import own_priors
from cns_jax.nn.model import Model


class Bucket(NamedTuple):
    """size: of its pictures; views: rows of views, as many as the concept with the most pictures in it has."""

    size: Size
    views: int


@dataclass(frozen=True)
class Layout:
    """buckets: those that any concept has pictures in; masked: whether views have loss masks, since any picture has."""

    buckets: tuple[Bucket, ...]
    masked: bool

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Of the buckets."""
        return tuple(bucket.size for bucket in self.buckets)


def layout_of(model: Model, settings: RunSettings, concepts: Sequence[Concept]) -> Layout:
    """Of the concepts that a run teaches. Raises SettingsError as `bucket_sizes`."""
    sizes, views = bucket_sizes(model, settings), dict[Size, int]()
    for concept in concepts:
        for size, part in by_bucket(concept, sizes).items():
            views[size] = max(views.get(size, 0), len(part.image_paths) * settings.train.views)
    masked = any(mask for concept in concepts for _, mask in masks_of(settings, concept))
    return Layout(tuple(Bucket(*of) for of in sorted(views.items())), masked)


@dataclass(frozen=True)
class LessonData:
    """What the steps of one concept read, by bucket. of_picture: the bucket of each picture; seed: of their order."""

    buckets: tuple[ConceptData, ...]
    of_picture: tuple[int, ...]
    seed: tuple[int, ...]

    def at(self, call: int) -> ConceptData:
        """What call number `call` of `train_steps` reads: the bucket of a picture, each picture once in a round.

        The order is drawn anew for each round from the seed and the round's number alone, so a resumed lesson goes on
        as an uninterrupted one.
        """
        turn, place = divmod(call, len(self.of_picture))
        order = np.random.default_rng((*self.seed, turn)).permutation(len(self.of_picture))
        return self.buckets[self.of_picture[order[place]]]


def masks_of(settings: RunSettings, concept: Concept) -> Iterator[tuple[Path, Image.Image | None]]:
    """The loss mask of each picture, with the file that holds it: beside the picture, else with train.alpha_mask the
    picture itself; None where there is none."""
    files = concept.mask_paths or (None,) * len(concept.image_paths)
    for path, file in zip(concept.image_paths, files, strict=True):
        if file:
            yield file, open_mask(file)
        else:
            yield path, open_alpha(path) if settings.train.alpha_mask else None


def check_data(model: Model, settings: RunSettings, concepts: Sequence[Concept]) -> None:
    """Raise DataError with all that is wrong with loss masks and the user's own prior images."""
    sizes, problems = bucket_sizes(model, settings), list[str]()
    for concept in concepts:
        for path, (file, mask) in zip(concept.image_paths, masks_of(settings, concept), strict=True):
            value = 255 if mask is None else brightest(mask, bucket_of(path, sizes))
            if value <= DARK:
                problems.append(
                    f"{file} would let nothing be learned: as a loss mask its brightest value in the part that is "
                    f"trained on is {value} of 255 (255 is learned, 0 is not)"
                )
    try:
        if settings.prior.folder:
            own_priors(settings, concepts)
    except DataError as error:
        problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
