from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.tree import map_named
from cns_jax.methods.base import Task
from cns_jax.nn.clip import CLIPTextConfig
from cns_jax.nn.model import Model
from cns_jax.nn.unet import UNetConfig
from cns_jax.nn.vae import VAEConfig

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: for laws.py

WIDTH, WORDS = 32, 40
BEGIN, END = 0, 1


@dataclass(frozen=True)
class Tiny:
    """A random two-level Stable Diffusion; its words are the ids 2..39, row r of the concept rows is 40 + r."""

    model: Model
    base: dict[str, Any]

    def hidden(self, ids_bl: np.ndarray) -> jax.Array:
        return jax.jit(self.model.encode_text)(self.base["text_encoder"], jnp.asarray(ids_bl))

    def task(self, row: int, seed: int | None = None, captions: int = 2, prompts: int = 6) -> Task:
        """A concept whose captions share their first words; the calibration prompts share nothing."""
        rng = np.random.default_rng(row if seed is None else seed)
        ids = sentences(rng, captions)
        ids[:, 1:5] = ids[0, 1:5]
        calibration = sentences(np.random.default_rng(99), prompts)
        start = jnp.asarray(rng.normal(size=WIDTH).astype(np.float32))
        inner, inner_k = ids != BEGIN, calibration != BEGIN
        return Task(self.hidden(ids), jnp.asarray(inner), self.hidden(calibration), jnp.asarray(inner_k), row, start)


def sentences(rng: np.random.Generator, count: int) -> np.ndarray:
    """Ids (count, 8): begin, six words, end."""
    words = rng.integers(2, WORDS, (count, 6))
    edge = np.ones((count, 1), np.int64)
    return np.concatenate([BEGIN * edge, words, END * edge], axis=1).astype(np.int32)


def random_params(model: Model) -> dict[str, Any]:
    """Like `model.init`, without compiling it."""
    rng = np.random.default_rng(0)

    def leaf(name: str, spec: Any) -> jax.Array:
        noise = rng.normal(size=spec.shape).astype(np.float32)
        if name.endswith("scale"):
            return jnp.asarray(1 + 0.5 * noise)
        return jnp.asarray(noise / max(np.prod(spec.shape[:-1]), 1) ** 0.5)

    return map_named(leaf, jax.eval_shape(model.init, jax.random.key(0)))


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    cross, plain = "CrossAttnDownBlock2D", "DownBlock2D"
    unet = UNetConfig(
        sample_size=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=(cross, plain),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )
    text = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
    )
    vae = VAEConfig(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(8,),
        norm_num_groups=4,
    )
    model = Model(unet, vae, text)
    return Tiny(model, random_params(model))
