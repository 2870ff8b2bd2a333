"""From settings to what the steps read: views encoded, priors made, prompts as the method sees them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cns_jax.core.mesh import replicate
from cns_jax.core.types import Concept, ConceptData
from cns_jax.data.captions import class_prompt, scoring_captions
from cns_jax.data.latents import LatentCache
from cns_jax.data.views import Size
from cns_jax.engine.draw.prior import Part, compile_priors, prior_latents, prior_parts
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.buckets import by_bucket
from cns_jax.engine.teach.layout import Bucket, Layout, LessonData, masks_of
from cns_jax.engine.teach.own_priors import own_priors
from cns_jax.engine.timings import Timings
from cns_jax.evals.neuron_prompts import general_pool, pool_of
from cns_jax.methods.base import Task
from cns_jax.neurons.calibration import draw as draw_prompts
from cns_jax.text.vocabulary import MaskMode


def latent_cache(studio: Studio, settings: RunSettings, size: Size) -> LatentCache:
    """What encodes a run's pictures of a bucket and keeps them."""
    train, vae, folder = settings.train, studio.params["vae"], settings.caches / "latents"
    return LatentCache(folder, studio.model, vae, studio.ids["vae"], size, train.views, settings.seed, train.flip)


def compile_ahead(studio: Studio, settings: RunSettings, concept: Concept, layout: Layout) -> None:
    """Begin to compile what encodes a concept's pictures and makes its prior images, unless these are kept already."""
    for size, part in by_bucket(concept, layout.sizes).items():
        latent_cache(studio, settings, size).ahead(part.image_paths)
    for parts in priors_of(settings, concept, layout).values():
        compile_priors(studio, parts, settings.prior.sample, settings.caches / "priors")


def concept_data(
    studio: Studio, settings: RunSettings, concept: Concept, layout: Layout, timings: Timings
) -> LessonData:
    """Everything the steps read of a concept. layout: of the run, so that all concepts share one compilation a
    bucket."""
    buckets, rows = by_bucket(concept, layout.sizes), dict(layout.buckets)
    parts = priors_of(settings, concept, layout)
    data = []
    for size, part in buckets.items():
        with timings.part("encode"):
            moments, masks = _views(settings, part, latent_cache(studio, settings, size), layout.masked)
        ids = studio.vocabulary.encode(settings.method.prompts(part, settings.train.views, settings.seed))
        with timings.part("priors"):
            priors, prior_ids = _priors(studio, settings, concept, size, parts.get(size, []))
        arrays = (
            _filled(moments, rows[size]), _filled(ids, rows[size]), np.int32(len(moments)),
            _filled(priors, _prior_rows(settings)), _filled(prior_ids, _prior_rows(settings)), np.int32(len(priors)),
            None if masks is None else _filled(masks, rows[size]),
        )  # fmt: skip
        data.append(ConceptData(*replicate(studio.mesh, arrays)))
    of_picture = tuple(bucket for bucket, part in enumerate(buckets.values()) for _ in part.image_paths)
    return LessonData(tuple(data), of_picture, (settings.seed, zlib.crc32(concept.name.encode())))


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, again and again up to `count` of them."""
    return np.resize(rows, (count, *rows.shape[1:]))


def _views(
    settings: RunSettings, concept: Concept, cache: LatentCache, masked: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Moments (v, h, w, 2 * c) of the concept's views, and if `masked` how much each position is learned (v, h, w)."""
    shown = tqdm(concept.image_paths, f"encoding {concept.name}", unit="picture", leave=False)
    moments = np.concatenate([cache.moments(path) for path in shown])
    if not masked:
        return moments, None
    everywhere = np.ones((cache.count, *moments.shape[1:3]), np.float32)
    found = zip(concept.image_paths, masks_of(settings, concept), strict=True)
    masks = [everywhere if mask is None else cache.masks(path, mask) for path, (_, mask) in found]
    return moments, np.concatenate(masks).clip(settings.train.unmasked_weight, 1)


def _prior_rows(settings: RunSettings) -> int:
    return settings.prior.images if settings.train.prior_batch else 1


def data_shapes(studio: Studio, settings: RunSettings, layout: Layout) -> tuple[ConceptData, ...]:
    """What `concept_data` puts into each bucket, as shapes."""
    length, priors = studio.model.text_encoder.max_position_embeddings, _prior_rows(settings)

    def real(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def whole(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    def of_bucket(bucket: Bucket) -> ConceptData:
        views, (h, w, c) = bucket.views, studio.model.latent_shape(*reversed(bucket.size))
        return ConceptData(
            real(views, h, w, 2 * c), whole(views, length), whole(),
            real(priors, h, w, c), whole(priors, length), whole(),
            real(views, h, w) if layout.masked else None,
        )  # fmt: skip

    return tuple(map(of_bucket, layout.buckets))


def priors_of(settings: RunSettings, concept: Concept, layout: Layout) -> dict[Size, list[Part]]:
    """What the concept's generated prior images show, by bucket; nothing if steps have none, or the user's own.

    Each bucket has its share by pictures of prior.images, made in its size.
    """
    if settings.train.prior_batch == 0 or settings.prior.folder:
        return {}
    pool, found = general_pool(settings.calibration), {}
    for size, part in by_bucket(concept, layout.sizes).items():
        images = max(1, round(settings.prior.images * len(part.image_paths) / len(concept.image_paths)))
        prior = dataclasses.replace(settings.prior, images=images)
        found[size] = prior_parts(class_prompt(concept), pool, prior, settings.seed, size)
    return found


def _priors(
    studio: Studio, settings: RunSettings, concept: Concept, size: Size, parts: Sequence[Part]
) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, h, w, c) and token ids (n, l); one row of zeros that nothing reads if there are no prior images."""
    if settings.prior.folder:
        own = own_priors(settings, [concept])[0]
        return latent_cache(studio, settings, size).means(own.paths), studio.vocabulary.encode(list(own.prompts))
    if not parts:
        shape = studio.model.latent_shape(*reversed(size))
        return np.zeros((1, *shape), np.float32), studio.vocabulary.encode([class_prompt(concept)])
    latents = [prior_latents(studio, part, settings.prior.sample, settings.caches / "priors") for part in parts]
    return np.concatenate(latents), studio.vocabulary.encode([prompt for part in parts for prompt in part.prompts])


_TOKENS = 8  # prompts are encoded up to a multiple, so that few lengths are compiled


class Hidden(NamedTuple):
    """Hidden states (b, l, d) of prompts, and the positions that count (b, l)."""

    states_bld: jax.Array
    mask_bl: jax.Array


def calibration_of(studio: Studio, settings: RunSettings) -> Hidden | None:
    """Of the calibration prompts, which all concepts of a run share; None if the method does not select."""
    if not settings.method.selects:
        return None
    method: Any = settings.method
    prompts = draw_prompts(pool_of(settings.calibration), method.calibration_prompts, settings.seed)
    return _hidden(studio, method.positions, list(prompts))


def task_of(studio: Studio, settings: RunSettings, concept: Concept, calibration: Hidden | None) -> Task:
    """The concept as the method sees it: its row, and hidden states of captions and calibration prompts where these
    are read."""
    row, init = studio.vocabulary.row_of(concept.token), studio.embedding_of(concept.init_word or concept.class_word)
    if calibration is None:
        return Task(None, None, None, None, row, init)
    method: Any = settings.method
    captions = _hidden(studio, method.positions, list(dict.fromkeys(scoring_captions(concept))))
    return Task(*captions, *calibration, row, init)


def _hidden(studio: Studio, positions: MaskMode, prompts: list[str]) -> Hidden:
    """A causal encoder's states do not depend on later tokens, so the padding behind the longest prompt is left out."""
    ids = studio.vocabulary.encode(prompts)
    mask = studio.vocabulary.caption_mask(ids, positions)
    used = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
    length = used + -used % _TOKENS
    return Hidden(studio.encode(ids[:, :length]), jax.device_put(mask[:, :length]))
