"""Pictures from prompts: encode, denoise with guidance, decode, in batches of one compiled size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cns_jax.core.batches import in_batches
from cns_jax.core.compiling import jit
from cns_jax.core.mesh import everywhere, over_data, rows_over
from cns_jax.core.rng import stream
from cns_jax.diffusion.guidance import classifier_free
from cns_jax.diffusion.samplers import get_sampler
from cns_jax.diffusion.schedule import Schedule
from cns_jax.engine.settings import AUTO, SampleSettings
from cns_jax.nn.model import Model
from cns_jax.text.vocabulary import Vocabulary

R = TypeVar("R")


@dataclass(frozen=True)
class Generator:
    """What generation needs besides the weights."""

    model: Model
    schedule: Schedule
    vocabulary: Vocabulary
    size: tuple[int, int]  # height and width of the pictures
    sampler: str  # what settings call "auto"
    mesh: Mesh

    def latents(
        self,
        params: Mapping[str, Any],
        rows_rd: jax.Array,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
        title: str = "pictures",
    ) -> np.ndarray:
        """Scaled latents float32 (n, h, w, c); image i starts from the noise of seeds[i], whatever its batch.

        title: of the progress bar, which is shown where there is more than one batch.
        """
        self.ahead(params, rows_rd, settings)
        ids = self.vocabulary.encode(list(prompts))
        sample = self._calling(sample_latents, params, rows_rd, settings)
        return in_batches(sample, settings.batch, ids, np.asarray(seeds, np.uint32), title=title)

    def ahead(self, params: Mapping[str, Any], rows_rd: jax.Array, settings: SampleSettings) -> None:
        """Begin to compile what `latents` calls with these, unless that was begun."""
        ids = np.repeat(self.vocabulary.encode([""]), settings.batch, axis=0)
        self._calling(sample_latents.ahead, params, rows_rd, settings)(ids, np.zeros(settings.batch, np.uint32))

    def _calling(
        self, function: Callable[..., R], params: Mapping[str, Any], rows_rd: jax.Array, settings: SampleSettings
    ) -> Callable[[np.ndarray, np.ndarray], R]:
        """`function`, which takes what `sample_latents` takes, of token ids and seeds alone."""
        negative = jax.device_put(self.vocabulary.encode([settings.negative_prompt]))
        shape = self.model.latent_shape(*self.size)
        sampler = self.sampler if settings.sampler == AUTO else settings.sampler

        def call(ids_bl: np.ndarray, seeds_b: np.ndarray) -> R:
            return function(
                params, rows_rd, jax.device_put(ids_bl), negative, jax.device_put(seeds_b), settings.guidance_scale,
                model=self.model, schedule=self.schedule, shape=shape, sampler=sampler, steps=settings.steps,
                mesh=self.mesh,
            )  # fmt: skip

        return call

    def images(
        self,
        params: Mapping[str, Any],
        rows_rd: jax.Array,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SampleSettings,
    ) -> np.ndarray:
        """Pictures uint8 (n, height, width, 3)."""
        self.ahead(params, rows_rd, settings)
        latents = (settings.batch, *self.model.latent_shape(*self.size))
        of_latents = jax.ShapeDtypeStruct(latents, np.float32)
        decode.ahead(params["vae"], of_latents, model=self.model, mesh=self.mesh)
        pictures = partial(decode, params["vae"], model=self.model, mesh=self.mesh)
        return in_batches(pictures, settings.batch, self.latents(params, rows_rd, prompts, seeds, settings))


@jit(static_argnames=("model", "schedule", "shape", "sampler", "steps", "mesh"))
def sample_latents(
    params: Mapping[str, Any],
    rows_rd: jax.Array,
    ids_bl: jax.Array,
    negative_1l: jax.Array,
    seeds_b: jax.Array,
    guidance_scale: float | jax.Array,
    *,
    model: Model,
    schedule: Schedule,
    shape: tuple[int, int, int],
    sampler: str,
    steps: int,
    mesh: Mesh,
) -> jax.Array:
    """Scaled latents (b, *shape) of prompts given as token ids. The devices share the images if they divide b."""
    with rows_over(mesh):
        hidden = model.encode_text(params["text_encoder"], jnp.concatenate([ids_bl, negative_1l]), rows_rd)
        hidden = everywhere(mesh, hidden)  # one row more than images, so each device computes all
        text, negative = hidden[:-1], hidden[-1:]
        keys = jax.vmap(jax.random.key)(seeds_b)
        noise = over_data(mesh, jax.vmap(lambda key: jax.random.normal(stream(key, "latents"), shape))(keys))
        denoiser = classifier_free(partial(model.predict_noise, params["unet"]), text, negative, guidance_scale)
        return everywhere(mesh, get_sampler(sampler)(schedule, denoiser, noise, steps, key=keys))


@jit(static_argnames=("model", "mesh"))
def decode(vae_params: Mapping[str, Any], latents_bhwc: jax.Array, *, model: Model, mesh: Mesh) -> jax.Array:
    """Scaled latents to pictures, uint8."""
    with rows_over(mesh):
        images = model.decode(vae_params, over_data(mesh, latents_bhwc))
    return everywhere(mesh, jnp.round((images + 1.0) * 127.5).astype(jnp.uint8))
