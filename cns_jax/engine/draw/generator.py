"""Pictures from prompts: encode, denoise with guidance, decode, in batches of one compiled size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cns_jax.core.batches import by_kind, in_batches
from cns_jax.core.rng import SEEDS, is_wide, seed_words
from cns_jax.diffusion.schedule import Schedule
from cns_jax.engine.draw.sampling import decode, decodes_finite, sample_chunks, sample_latents
from cns_jax.engine.settings import AUTO, SampleSettings
from cns_jax.methods.applied import Applied
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.nn.model import Model
from cns_jax.text.chunks import Chunks, Syntax, chunks_of
from cns_jax.text.vocabulary import Vocabulary


class PictureError(ValueError):
    """Sampling or decoding ended in NaN or infinity; the message names the prompt, the seed and the likely cause."""


@dataclass(frozen=True)
class Generator:
    """What generation needs besides the weights."""

    model: Model
    schedule: Schedule
    vocabulary: Vocabulary
    size: tuple[int, int]  # height and width of the pictures
    sampler: str  # what settings call "auto"
    mesh: Mesh

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of a picture's latents."""
        return self.model.latent_shape(*self.size)

    def sampler_of(self, settings: SampleSettings) -> str:
        """The sampler's name; "auto" is the checkpoint's own."""
        return self.sampler if settings.sampler == AUTO else settings.sampler

    def latents(
        self,
        applied: Applied,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
        title: str = "pictures",
        syntax: Syntax = "plain",
    ) -> np.ndarray:
        """Scaled latents float32 (n, h, w, c); image i starts from the noise of seeds[i], whatever its batch.

        seeds: counted on from 0 after the last of 64 bits. title: of the progress bar, which is shown where there is
        more than one batch. syntax: of the prompts. One program is compiled for all plain prompts, and one for each
        number of chunks. Raises PictureError where the latents are not finite.
        """
        seeds = [int(seed) % SEEDS for seed in seeds]
        texts = chunks_of(self.vocabulary, prompts, syntax)
        negative = chunks_of(self.vocabulary, [settings.negative_prompt], syntax)[0]
        counts = [_chunks(text, negative) for text in texts]
        if 0 in counts:
            self.ahead(applied, settings)

        def draw(which: list[int]) -> np.ndarray:
            words, count = seed_words([seeds[i] for i in which]), counts[which[0]]
            if count:
                parts = _stacked([texts[i].repeated(count) for i in which])
                without = _stacked([negative.repeated(count)])
                sample = self._calling(sample_chunks, applied, settings, *without)
            else:
                parts = (np.concatenate([texts[i].ids_kl for i in which]),)
                sample = self._calling(sample_latents, applied, settings, negative.ids_kl)
            return in_batches(sample, settings.batch, *parts, words, title=title)

        found = by_kind([(count, is_wide(seed)) for count, seed in zip(counts, seeds, strict=True)], draw)
        finite = np.isfinite(found).all((1, 2, 3))
        if not finite.all():
            broken = int(np.argmin(finite))
            cause = _cause(applied, settings)
            raise PictureError(f"the picture of {prompts[broken]!r} with seed {seeds[broken]} became NaN: {cause}")
        return found

    def ahead(self, applied: Applied, settings: SampleSettings) -> None:
        """Begin to compile what `latents` calls with these and plain prompts, unless that was begun."""
        empty = self.vocabulary.encode([""])
        ids = np.repeat(empty, settings.batch, axis=0)
        self._calling(sample_latents.ahead, applied, settings, empty)(ids, np.zeros(settings.batch, np.uint32))

    def _calling(
        self,
        function: Callable[..., Any],
        applied: Applied,
        settings: SampleSettings,
        *negative: np.ndarray,
    ) -> Callable[..., Any]:
        """`function`, which takes what `sample_latents` or `sample_chunks` takes, of the prompts' arrays and the seeds
        alone."""
        without = [jax.device_put(array) for array in negative]

        def call(*arrays: np.ndarray) -> Any:
            *texts, words = [jax.device_put(array) for array in arrays]
            return function(
                applied, *texts, *without, words, settings.guidance_scale, model=self.model,
                schedule=self.schedule, shape=self.shape, sampler=self.sampler_of(settings), steps=settings.steps,
                mesh=self.mesh,
            )  # fmt: skip

        return call

    def images(
        self,
        applied: Applied,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
        syntax: Syntax = "plain",
    ) -> np.ndarray:
        """Pictures uint8 (n, height, width, 3). Raises PictureError where they are not finite."""
        if syntax == "plain":
            self.ahead(applied, settings)
        of_latents = jax.ShapeDtypeStruct((settings.batch, *self.shape), np.float32)
        decode.ahead(applied.params["vae"], of_latents, model=self.model, mesh=self.mesh)
        latents = self.latents(applied, prompts, seeds, settings, syntax=syntax)
        pictures = partial(decode, applied.params["vae"], model=self.model, mesh=self.mesh)
        found = in_batches(pictures, settings.batch, latents)
        self._check_decoded(applied.params, latents, found, prompts, seeds, settings)
        return found

    def _check_decoded(
        self,
        params: Mapping[str, Any],
        latents: np.ndarray,
        pictures: np.ndarray,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> None:
        """NaN becomes a picture of one colour, since the decoder's last norm spreads it; only such ones are decoded
        again, by a program that tells."""
        uniform = np.flatnonzero((pictures == pictures[:, :1, :1]).all((1, 2, 3)))
        if not len(uniform):
            return
        check = partial(decodes_finite, params["vae"], model=self.model, mesh=self.mesh)
        finite = in_batches(check, settings.batch, latents[uniform])
        if not finite.all():
            broken = uniform[np.argmin(finite)]
            raise PictureError(
                f"the picture of {prompts[broken]!r} with seed {seeds[broken]} became NaN in the VAE's decoder, which "
                f"computed in {self.model.compute}; compute in float32, or take another VAE"
            )


def _chunks(text: Chunks, negative: Chunks) -> int:
    """Of how many chunks both are made, each repeated; 0: both are plain."""
    return 0 if text.plain and negative.plain else math.lcm(len(text.ids_kl), len(negative.ids_kl))


def _stacked(texts: Sequence[Chunks]) -> tuple[np.ndarray, ...]:
    """ids and weights (n, k, l) of texts with equally many chunks."""
    return np.stack([text.ids_kl for text in texts]), np.stack([text.weights_kl for text in texts])


def _cause(applied: Applied, settings: SampleSettings) -> str:
    trained = jax.tree.leaves((applied.rows_rd, cross_attention_kernels(applied.unet), applied.low_rank))
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in trained):
        return (
            "the trained weights hold NaN or infinity, since the training diverged; take the weights after an earlier "
            "concept, and train again with lower learning rates"
        )
    return (
        f"sampling diverged with guidance_scale={settings.guidance_scale:g}; lower it, or the weights in the prompt, "
        "or compute in float32"
    )
