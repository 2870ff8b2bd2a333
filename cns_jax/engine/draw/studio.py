"""A loaded model with its vocabulary and concepts: what training, generation and evaluation start from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cns_jax.core.batches import in_batches
from cns_jax.core.mesh import make_mesh, place
from cns_jax.core.tree import Tree
from cns_jax.core.xla.compiling import jit
from cns_jax.diffusion.schedule import Schedule, ScheduleError, sampler_of_config
from cns_jax.engine.draw.generator import Generator
from cns_jax.engine.settings import SampleSettings
from cns_jax.methods.applied import Applied
from cns_jax.methods.parts import no_rows
from cns_jax.neurons.score import is_cross_attention_kernel
from cns_jax.nn.model import Model
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.pipeline import Source

log = logging.getLogger(__name__)


def compute_dtype(compute: str) -> Any:
    """The dtype of "float32", "bfloat16", or "auto": bfloat16 on GPU and TPU, float32 on a CPU."""
    if compute == "auto":
        compute = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(compute)


def stored_dtype(name: str, dtype: Any) -> Any:
    """The dtype that a parameter is kept in: float32 if it learns (cross-attention K/V), else the compute dtype."""
    return jnp.dtype(jnp.float32) if is_cross_attention_kernel(name) else dtype


def own_sampler(source: Source) -> str:
    """The sampler that a checkpoint's scheduler_config.json means; dpm++2m if it names none of ours."""
    try:
        return sampler_of_config(source.scheduler)
    except ScheduleError as error:
        log.info("the checkpoint's own sampler is not among ours (%s); auto means dpm++2m", error)
        return SampleSettings().sampler


TEXTS = 8
"""Prompts a call of `encode_text`."""


@jit(static_argnames="model")
def encode_text(
    params: Mapping[str, Any], ids_bl: jax.Array, rows_rd: jax.Array | None = None, *, model: Model
) -> jax.Array:
    """Hidden states (b, l, d) of token ids, by the text encoder's parameters. rows_rd: of concept tokens."""
    return model.encode_text(params, ids_bl, rows_rd)


@jax.jit
def _mean_row(table_vd: jax.Array, ids_n: np.ndarray) -> jax.Array:
    return table_vd[ids_n].mean(0).astype(jnp.float32)


@dataclass(frozen=True)
class Studio:
    """params: on the mesh, frozen weights in the compute dtype, cross-attention K/V kernels in float32.

    ids: fingerprints of the weights as stored, by part, and of all ("model"). sampler: the one that the
    checkpoint's scheduler_config.json names, which settings call "auto".
    """

    model: Model
    params: Mapping[str, Tree]
    schedule: Schedule
    vocabulary: Vocabulary
    mesh: Mesh
    resolution: int
    ids: Mapping[str, str]
    sampler: str

    @classmethod
    def open(
        cls,
        source: Source,
        tokens: tuple[str, ...],
        reserved: int,
        resolution: int,
        fsdp: int = 1,
        compute: str = "auto",
        remat: bool = False,
    ) -> Studio:
        """Read a checkpoint, each weight straight to its place on the devices, and reserve rows for `tokens`."""
        mesh, dtype = make_mesh(fsdp), compute_dtype(compute)
        vocabulary = Vocabulary(load_tokenizer(source.tokenizer), tokens, reserved)

        loaded = source.load(lambda name, leaf: place(mesh, name, leaf.astype(stored_dtype(name, dtype), copy=False)))
        # float32 parameters decide by themselves; a dtype of its own would be another key of compiled programs
        model = dataclasses.replace(source.model, dtype=None if dtype == jnp.float32 else dtype, remat=remat)
        return cls(model, loaded.params, source.schedule, vocabulary, mesh, resolution, loaded.ids, own_sampler(source))

    @property
    def generator(self) -> Generator:
        """Generation with this model."""
        size = (self.resolution, self.resolution)
        return Generator(self.model, self.schedule, self.vocabulary, size, self.sampler, self.mesh)

    @property
    def no_rows(self) -> jax.Array:
        """Concept rows of the base model: zeros float32 (reserved, d)."""
        return no_rows(self.vocabulary.reserved, self.model.text_encoder.hidden_size)

    def encode(self, ids: np.ndarray, rows_rd: jax.Array | None = None) -> jax.Array:
        """Hidden states (b, l, d) of token ids int32 (b, l). rows_rd: of concept tokens, where ids name any."""
        encode = partial(encode_text, self.params["text_encoder"], rows_rd=rows_rd, model=self.model)
        return jax.device_put(in_batches(encode, TEXTS, ids))

    def embedding_of(self, word: str) -> jax.Array:
        """Mean input embedding of a word's tokens, float32 (d,): what a new concept's row starts from."""
        table = self.params["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
        return _mean_row(table, np.asarray(self.vocabulary.token_ids(word)))

    @property
    def base(self) -> Applied:
        """The base model, which knows no concept."""
        return Applied(self.params, self.no_rows)
