"""A loaded model with its vocabulary and concepts: what training, generation and evaluation start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cns_jax.core.mesh import make_mesh, place_parameters
from cns_jax.core.tree import Tree, fingerprint
from cns_jax.diffusion.schedule import Schedule
from cns_jax.engine.sampling import Generator
from cns_jax.nn.model import Model
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.folder import Pipeline, read_pipeline
from cns_jax.weights.strict import WeightsMismatch

MINIATURE = "miniature"


def miniature_folder() -> Path:
    """Where the shipped miniature lies."""
    return Path(str(resources.files("cns_jax.miniature"))) / "model"


def open_pipeline(model: str) -> Pipeline:
    """The pipeline called `model`: "miniature", or the path of a diffusers folder.

    Raises WeightsMismatch saying what to give instead if the path does not exist.
    """
    if model == MINIATURE:
        return read_pipeline(miniature_folder())
    if not Path(model).is_dir():
        raise WeightsMismatch(f"model={model!r} is not a folder; give {MINIATURE!r} or the path of a diffusers folder")
    return read_pipeline(model)


@dataclass(frozen=True)
class Studio:
    """params: on the mesh, in the compute dtype. rows: reserved concept rows."""

    model: Model
    params: Mapping[str, Tree]
    schedule: Schedule
    vocabulary: Vocabulary
    mesh: Mesh
    resolution: int

    @classmethod
    def open(cls, pipeline: Pipeline, tokens: tuple[str, ...], reserved: int, resolution: int, fsdp: int = 1) -> Studio:
        """Place a pipeline's parameters on all devices and reserve rows for `tokens`."""
        mesh = make_mesh(fsdp)
        vocabulary = Vocabulary(load_tokenizer(pipeline.tokenizer), tokens, reserved)
        return cls(
            pipeline.model, place_parameters(mesh, pipeline.params), pipeline.schedule, vocabulary, mesh, resolution
        )

    @cached_property
    def base_id(self) -> str:
        """Fingerprint of all parameters."""
        return fingerprint(self.params)

    @cached_property
    def vae_id(self) -> str:
        """Fingerprint of the VAE."""
        return fingerprint(self.params["vae"])

    @property
    def generator(self) -> Generator:
        """Generation with this model."""
        return Generator(self.model, self.schedule, self.vocabulary, self.resolution)

    def encode(self, prompts: list[str], rows_rd: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Token ids (b, l) and hidden states (b, l, d)."""
        ids = jnp.asarray(self.vocabulary.encode(prompts))
        return ids, self.model.encode_text(self.params["text_encoder"], ids, rows_rd)

    def embedding_of(self, word: str) -> jax.Array:
        """Mean input embedding of a word's tokens, float32 (d,): what a new concept's row starts from."""
        table = self.params["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
        return jnp.asarray(table)[jnp.asarray(self.vocabulary.token_ids(word))].mean(0).astype(jnp.float32)

    def with_unet(self, unet: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with another UNet, for sampling."""
        return {**self.params, "unet": unet}
