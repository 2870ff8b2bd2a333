"""The workloads in JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.suites import (
    CALIBRATION,
    CAPTIONS,
    GUIDANCE,
    NAMES,
    PRIORS,
    ROWS,
    TOKENS,
    VIEWS,
    Suite,
    Workload,
    Workloads,
)
from cns_jax.core.batches import in_batches
from cns_jax.core.memory import keep_memory
from cns_jax.core.mesh import make_mesh, place, replicate
from cns_jax.core.tree import Tree, overlay
from cns_jax.core.types import ConceptData, Frozen
from cns_jax.core.xla.compiling import jit
from cns_jax.core.xla.flops import counting_mesh, flops
from cns_jax.data.latents import encode_views
from cns_jax.engine.draw.sampling import decode, sample_latents
from cns_jax.engine.draw.studio import TEXTS, compute_dtype, encode_text, stored_dtype
from cns_jax.engine.teach.step import StepSpec, draw, initial_state, method_loss, train_steps
from cns_jax.methods import METHODS
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Method, Task
from cns_jax.neurons import select
from cns_jax.neurons.score import cross_attention_kernels, feature_norms
from cns_jax.protect.moments import Protected, second_moment
from cns_jax.protect.proximal import Pull, pull_of
from cns_jax.weights.folder import WEIGHT_FILES, read_folder, write_weights


class Ours:
    """A model folder opened as training opens it; inputs are random, since only their shapes matter here."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self.suite = suite
        self.source = source = read_folder(folder)
        self.dtype = compute_dtype("auto")
        self.mesh, self.schedule = make_mesh(), source.schedule
        self.model = dataclasses.replace(source.model, dtype=None if self.dtype == jnp.float32 else self.dtype)
        self.rng = np.random.default_rng(0)
        self.shape = self.model.latent_shape(suite.pixels, suite.pixels)
        text = self.model.text_encoder
        self.length, self.width, self.vocabulary = text.max_position_embeddings, text.hidden_size, text.vocab_size

    @cached_property
    def params(self) -> Mapping[str, Tree]:
        """The weights on the devices."""
        return self.source.load(self._place).params

    def _place(self, name: str, leaf: np.ndarray) -> jax.Array:
        return place(self.mesh, name, leaf.astype(stored_dtype(name, self.dtype), copy=False))

    def _normal(self, *shape: int) -> jax.Array:
        return jnp.asarray(self.rng.standard_normal(shape), jnp.float32)

    def _ids(self, count: int) -> jax.Array:
        ids = self.rng.integers(0, self.vocabulary, (count, self.length))
        ids[:, 4] = self.vocabulary  # the first taught row
        return jnp.asarray(ids, jnp.int32)

    @cached_property
    def task(self) -> Task:
        """Hidden states of captions and calibration prompts, all positions counted."""
        hidden = [self._normal(n, TOKENS, self.width) for n in (CAPTIONS, CALIBRATION)]
        masks = [jnp.ones(h.shape[:2], bool) for h in hidden]
        return Task(hidden[0], masks[0], hidden[1], masks[1], 0, self._normal(self.width))

    def matmul(self) -> Workload:
        """The ceiling: a large product in the compute dtype."""
        n, times = (2048, 1) if jax.default_backend() == "cpu" else (8192, 50)  # one alone finds a GPU's clock at rest
        x = self._normal(n, n).astype(self.dtype)
        product = jit()(jnp.matmul)

        def run() -> None:
            for _ in range(times):
                last = product(x, x)
            last.block_until_ready()

        return Workload(run, flops=2.0 * n**3, per=times)

    def select(self) -> Workload:
        """A concept's neurons from the token ids of captions and calibration prompts (eq. 3 to 6)."""
        kernels = cross_attention_kernels(self.params["unet"])
        ids = [self._ids(n)[:, :TOKENS] for n in (CAPTIONS, CALIBRATION)]
        encode = partial(encode_text, self.params["text_encoder"], model=self.model)

        def norms(ids_bl: jax.Array) -> jax.Array:
            hidden = in_batches(encode, TEXTS, np.minimum(np.asarray(ids_bl), self.vocabulary - 1))
            return feature_norms(jnp.asarray(hidden), jnp.ones(hidden.shape[:2], bool))

        return Workload(
            lambda: jax.block_until_ready(select.concept_neurons(kernels, *(norms(i) for i in ids), 0.3)),
            flops=sum(
                flops(partial(encode_text.__wrapped__, model=self.model), self.params["text_encoder"], i) for i in ids
            ),
        )

    def step(self, method: Method | None = None, pull: Pull | None = None) -> Workload:
        """Training steps, batches drawn on the device. method: CNS, or another; pull: what protects, if anything."""
        suite, method = self.suite, method or METHODS["cns"]()
        priors = suite.prior_batch if method.prior_weight else 0
        spec = StepSpec(self.model, method, self.schedule, self.mesh, suite.batch, priors, 0.0)
        trainable, plan, _ = method.begin(
            jax.random.key(0), self.params, method.empty(self.params, ROWS, self.width), self.task
        )
        h, w, c = self.shape
        data = ConceptData(
            self._normal(VIEWS, h, w, 2 * c), self._ids(VIEWS), jnp.asarray(VIEWS),
            self._normal(PRIORS, h, w, c), self._ids(PRIORS), jnp.asarray(PRIORS),
        )  # fmt: skip
        # as training places them; a step returns its state so, and another placement is another program
        plan, data, key, pull = replicate(self.mesh, (plan, data, jax.random.key(0), pull))
        frozen = Frozen(self.params, plan, pull)

        counted = dataclasses.replace(spec, mesh=counting_mesh())

        def loss(trainable: Any, base: Any, data: ConceptData, key: jax.Array) -> jax.Array:
            batch = draw(counted, key, jnp.asarray(0), data)
            return method_loss(counted, base, plan, trainable, batch, key)[0]

        work = flops(jax.grad(loss), trainable, self.params, data, key)
        states = [replicate(self.mesh, initial_state(method, trainable, plan))]

        def run() -> None:
            states[0], logs = train_steps(spec, suite.steps, states[0], frozen, data, key)
            jax.block_until_ready(logs)

        return Workload(run, suite.batch + priors, work, suite.steps)

    def pull(self, directions: int) -> Pull:
        """To the weights as they are, of as many directions (0: all); of random features, since all take as long."""
        kernels = cross_attention_kernels(self.params["unet"])
        moment_dd = second_moment(self.rng.standard_normal((2, self.width, self.width)))
        return pull_of(Protected.of(moment_dd, kernels), 1.0, directions or self.width, kernels)

    def _latents(self) -> Callable[[], np.ndarray]:
        suite = self.suite
        rows, ids, negative = self._normal(ROWS, self.width), np.asarray(self._ids(suite.pictures)), self._ids(1)

        def sample(ids_bl: np.ndarray, seeds_b: np.ndarray) -> jax.Array:
            return sample_latents(
                Applied(self.params, rows), ids_bl, negative, seeds_b, GUIDANCE, model=self.model,
                schedule=self.schedule, shape=self.shape, sampler="dpm++2m", steps=suite.sample_steps, mesh=self.mesh,
            )  # fmt: skip

        return partial(in_batches, sample, suite.pictures, ids, np.arange(suite.pictures, dtype=np.uint32))

    def sample(self) -> Workload:
        """Latents from prompts, with guidance."""
        suite, latents = self.suite, self._latents()
        count = 2 * suite.pictures
        inputs = (
            self._normal(count, *self.shape),
            jnp.zeros(count, jnp.int32),
            self._normal(count, self.length, self.width),
        )
        work = flops(self.model.predict_noise, self.params["unet"], *inputs) * suite.sample_steps
        return Workload(latents, suite.pictures, work)

    def draw(self) -> Workload:
        """Pictures from prompts: latents and their decoding."""
        latents, vae = self._latents(), self.params["vae"]
        shape = jax.ShapeDtypeStruct((self.suite.pictures, *self.shape), jnp.float32)
        work = self.sample().flops + flops(
            partial(decode.__wrapped__, model=self.model, mesh=counting_mesh()), vae, shape
        )
        pictures = partial(decode, vae, model=self.model, mesh=self.mesh)
        return Workload(lambda: in_batches(pictures, self.suite.pictures, latents()), self.suite.pictures, work)

    def encode(self) -> Workload:
        """Pictures to the VAE's moments."""
        pixels = self.suite.pixels
        count = self.suite.encoded
        images, vae = np.asarray(self._normal(count, pixels, pixels, 3)), self.params["vae"]
        work = flops(self.model.encode_image, vae, images)
        return Workload(partial(encode_views, self.model, vae, images, count), count, work)

    def export(self) -> Workload:
        """The base model in memory, its K/V kernels replaced, to files, float16: what `cns_jax.export` does."""
        base = self.source.load()
        taught = jax.tree.map(np.ascontiguousarray, cross_attention_kernels(base.params["unet"]))
        params = {**base.params, "unet": overlay(base.params["unet"], taught)}

        def run() -> None:
            with TemporaryDirectory() as folder:
                write_weights({Path(folder) / f"{part}.safetensors": params[part] for part in WEIGHT_FILES}, np.float16)

        return Workload(run, written=sum(2 * leaf.size for leaf in jax.tree.leaves(params)))


def workloads(suite: Suite, folder: Path) -> Workloads:
    """All of them, on the devices that JAX finds."""
    keep_memory()  # as the package's commands do
    ours = Ours(suite, folder)
    return {name: getattr(ours, name) for name in NAMES}
