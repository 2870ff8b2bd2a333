"""From settings to what the steps read: concepts found and checked, views encoded, priors made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cns_jax.core.mesh import replicate
from cns_jax.core.settings import require
from cns_jax.core.types import Concept, ConceptData
from cns_jax.data.captions import class_prompt, scoring_captions, training_prompts
from cns_jax.data.folder import discover, merge, read_concepts
from cns_jax.data.latents import LatentCache
from cns_jax.data.spec import ConceptSpec
from cns_jax.engine.learned import Learned
from cns_jax.engine.prior import Part, prior_latents, prior_parts
from cns_jax.engine.settings import ConceptSettings, RunSettings
from cns_jax.engine.studio import Studio
from cns_jax.engine.timings import Timings
from cns_jax.evals.neuron_prompts import general_pool, pool_of
from cns_jax.methods.base import Task
from cns_jax.miniature.concepts import MiniConcept, write_concept_folders
from cns_jax.miniature.concepts import concepts as mini_concepts
from cns_jax.neurons.calibration import draw as draw_prompts


def find_concepts(settings: RunSettings) -> tuple[Concept, ...]:
    """The run's concepts, in order; raises DataError or SettingsError with all that is wrong."""
    chosen, said = _specs(settings.concepts), _specs(settings.said)
    if settings.drawn is None:
        root = Path(settings.data_root).expanduser()
        return read_concepts(root, merge(root, chosen or discover(root), said))
    drawn = drawn_set(settings)
    unknown = [c.name for c in chosen if c.name not in drawn]
    require(not unknown, f"{settings.data_root} has no concepts {unknown}; it has {', '.join(drawn)}")
    chosen = chosen or [ConceptSpec(name) for name in drawn]
    names = [c.name for c in chosen]
    root = Path(settings.directory) / "data"
    write_concept_folders(int(settings.drawn), root, names=names)
    facts = ((c, drawn[c.name]) for c in chosen)
    specs = [c.over(ConceptSpec(c.name, "", d.token, d.class_word, d.kind)) for c, d in facts]
    return read_concepts(root, merge(None, specs, said))


def _specs(concepts: Sequence[ConceptSettings]) -> list[ConceptSpec]:
    return [ConceptSpec(c.name, c.folder, c.token, c.class_word, c.kind, c.init_word, c.steps) for c in concepts]


def taught_concepts(learned: Learned) -> tuple[Concept, ...]:
    """The concepts that a run knows, with pictures and captions as they lie there now: a drawn set is not drawn anew.

    Raises DataError with all that is wrong.
    """
    rows = learned.concepts
    specs = [ConceptSpec(r["name"], learned.folder(r["name"]), r["token"], r["class_word"], r["kind"]) for r in rows]
    return read_concepts(learned.pictures, specs, quiet=True)


def drawn_set(settings: RunSettings) -> dict[str, MiniConcept]:
    """The drawn concepts of "miniature:1", ":2" or ":3", by name; empty if data_root is a folder."""
    number = settings.drawn
    if number is None:
        return {}
    require(number in ("1", "2", "3"), f"data_root={settings.data_root!r}; the drawn sets are miniature:1, :2 and :3")
    return {c.name: c for c in mini_concepts(int(number))}


def caches(settings: RunSettings) -> Path:
    """Where encoded views and prior images are kept: beside the run, shared by runs."""
    return Path(settings.prior.directory or Path(settings.directory).parent / "cache").expanduser()


def latent_cache(studio: Studio, settings: RunSettings) -> LatentCache:
    """What encodes a run's pictures and keeps them."""
    train, vae, folder = settings.train, studio.params["vae"], caches(settings) / "latents"
    of_views = studio.resolution, train.views, settings.seed, train.flip
    return LatentCache(folder, studio.model, vae, studio.ids["vae"], *of_views)


def concept_data(studio: Studio, settings: RunSettings, concept: Concept, views: int, timings: Timings) -> ConceptData:
    """Everything the step reads of a concept. views: as many as the concept with the most pictures has, so that all
    share one compilation (`most_views`)."""
    with timings.part("encode"):
        pictures, cache = concept.image_paths, latent_cache(studio, settings)
        shown = tqdm(pictures, f"encoding {concept.name}", unit="picture", leave=False)
        moments = np.concatenate([cache.moments(path) for path in shown])
    ids = np.repeat(studio.vocabulary.encode(training_prompts(concept)), settings.train.views, axis=0)
    with timings.part("priors"):
        priors, prior_ids = _priors(studio, settings, concept)
    of_views = np.resize(moments, (views, *moments.shape[1:])), np.resize(ids, (views, ids.shape[1]))
    data = *of_views, np.int32(len(moments)), priors, prior_ids, np.int32(len(priors))
    return ConceptData(*replicate(studio.mesh, data))


def most_views(settings: RunSettings, concepts: Sequence[Concept]) -> int:
    """Of the concept with the most pictures."""
    return max(len(c.image_paths) for c in concepts) * settings.train.views


def data_shapes(studio: Studio, settings: RunSettings, views: int) -> ConceptData:
    """What `concept_data` returns, as shapes."""
    h, w, c = studio.model.latent_shape(studio.resolution, studio.resolution)
    length = studio.model.text_encoder.max_position_embeddings
    priors = settings.prior.images if settings.train.prior_batch else 1

    def real(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def whole(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    return ConceptData(
        real(views, h, w, 2 * c), whole(views, length), whole(),
        real(priors, h, w, c), whole(priors, length), whole(),
    )  # fmt: skip


def priors_of(settings: RunSettings, concept: Concept) -> list[Part]:
    """What the concept's prior images show; none if steps have no prior images."""
    if settings.train.prior_batch == 0:
        return []
    return prior_parts(class_prompt(concept), general_pool(settings.calibration), settings.prior, settings.seed)


def _priors(studio: Studio, settings: RunSettings, concept: Concept) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, h, w, c) and token ids (n, l); one row of zeros that nothing reads if there are no prior images."""
    parts, folder = priors_of(settings, concept), caches(settings) / "priors"
    if not parts:
        shape = studio.model.latent_shape(studio.resolution, studio.resolution)
        return np.zeros((1, *shape), np.float32), studio.vocabulary.encode([class_prompt(concept)])
    latents = [prior_latents(studio, part, settings.prior.sample, folder) for part in parts]
    return np.concatenate(latents), studio.vocabulary.encode([prompt for part in parts for prompt in part.prompts])


_TOKENS = 8  # prompts are encoded up to a multiple, so that few lengths are compiled


class Hidden(NamedTuple):
    """Hidden states (b, l, d) of prompts, and the positions that count (b, l)."""

    states_bld: jax.Array
    mask_bl: jax.Array


def calibration_of(studio: Studio, settings: RunSettings) -> Hidden:
    """Of the calibration prompts, which all concepts of a run share."""
    count = settings.method.calibration_prompts
    return _hidden(studio, settings, list(draw_prompts(pool_of(settings.calibration), count, settings.seed)))


def task_of(studio: Studio, settings: RunSettings, concept: Concept, calibration: Hidden) -> Task:
    """The concept as the method sees it: hidden states of captions and calibration prompts, its row."""
    captions = _hidden(studio, settings, list(dict.fromkeys(scoring_captions(concept))))
    init = studio.embedding_of(concept.init_word or concept.class_word)
    return Task(*captions, *calibration, studio.vocabulary.row_of(concept.token), init)


def _hidden(studio: Studio, settings: RunSettings, prompts: list[str]) -> Hidden:
    """A causal encoder's states do not depend on later tokens, so the padding behind the longest prompt is left out."""
    ids = studio.vocabulary.encode(prompts)
    mask = studio.vocabulary.caption_mask(ids, settings.method.positions)
    used = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
    length = used + -used % _TOKENS
    return Hidden(studio.encode(ids[:, :length]), jax.device_put(mask[:, :length]))
