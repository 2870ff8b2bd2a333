"""A concept's first step on a tiny random model, of any method."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tiny_runs import values

from cns_jax.core.settings import build
from cns_jax.core.types import ConceptData, Frozen, TrainState
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.step import StepSpec, initial_state
from cns_jax.methods.base import Task
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.protect.moments import Protected, second_moment
from cns_jax.protect.proximal import pull_of


def beginning(
    tiny_folder: Path, tmp_path: Path, fsdp: int = 1, method_name: str = "cns", **of_spec: int
) -> tuple[StepSpec, TrainState, Frozen, ConceptData]:
    """A concept's first step on a tiny random model."""
    given = values(tiny_folder, tmp_path)
    settings = build(RunSettings, {**given, "method": {**given["method"], "name": method_name}})
    studio = Studio.open(find_source(settings.address), ("<a>",), 5, 16, fsdp)
    method, rng = settings.method, np.random.default_rng(0)
    prompts = ["a photo of a <a> cat", "a photo of a cat", "a red mug", "a blue dog on the beach"]
    ids = studio.vocabulary.encode(prompts)
    hidden = studio.encode(ids)
    masks = jnp.ones(hidden.shape[:2], bool)
    task = Task(hidden[:2], masks[:2], hidden[2:], masks[2:], 0, studio.embedding_of("cat"))
    trainable, plan, _ = method.begin(jax.random.key(0), studio.params, method.empty(studio.params, 5, 32), task)
    images = (3, 1) if method.prior_weight else (4, 0)
    spec = StepSpec(studio.model, method, studio.schedule, studio.mesh, *images, 0.0, **of_spec)
    h, w, c = studio.model.latent_shape(16, 16)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    data = ConceptData(
        normal(5, h, w, 2 * c), jnp.tile(ids[:1], (5, 1)), jnp.int32(5),
        normal(4, h, w, c), jnp.tile(ids[1:2], (4, 1)), jnp.int32(4),
    )  # fmt: skip
    pull = None
    if method.protects:
        kernels = cross_attention_kernels(studio.params["unet"])
        pull = pull_of(Protected.of(second_moment(np.asarray(hidden)), kernels), 1.0, 8, kernels)
    return spec, initial_state(method, trainable, plan), Frozen(studio.params, plan, pull), data
