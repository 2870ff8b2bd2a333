"""Stable Diffusion 1.5's training step and sampler as shapes on a mesh of described devices: nothing is allocated."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.speed.suites import GUIDANCE, PRIORS, ROWS, VIEWS
from cns_jax.core.mesh import sharding_of
from cns_jax.core.tree import map_named
from cns_jax.core.types import ConceptData
from cns_jax.diffusion.schedule import Schedule
from cns_jax.engine.draw.sampling import decode, sample_latents
from cns_jax.engine.draw.studio import stored_dtype
from cns_jax.engine.teach.step import StepSpec, step_shapes, train_steps
from cns_jax.methods import METHODS
from cns_jax.methods.applied import Applied
from cns_jax.nn.model import Model
from cns_jax.protect.proximal import pull_shapes
from cns_jax.protect.settings import ProtectSettings

DTYPE = jnp.dtype(jnp.bfloat16)


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled. images: of the concept a chip and step, and of CNS as many prior ones; or pictures a call;
    steps: of the sampler; method: CNS, or the protected one with its pull."""

    name: str
    images: int
    steps: int = 1
    method: Literal["cns", "protected"] = "cns"


class Shapes:
    """The arguments of the programs for one model, picture size and mesh."""

    def __init__(self, model: Model, pixels: int, mesh: Mesh) -> None:
        self.model, self.mesh = dataclasses.replace(model, dtype=DTYPE), mesh
        self.latents = model.latent_shape(pixels, pixels)
        self.width, self.length = model.text_encoder.hidden_size, model.text_encoder.max_position_embeddings
        self.schedule = Schedule()
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.params = map_named(self._parameter, jax.eval_shape(model.init, jax.random.key(0)))

    def _parameter(self, name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            leaf.shape, stored_dtype(name, DTYPE), sharding=sharding_of(self.mesh, name, leaf.shape)
        )

    def array(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        """An array that every device holds."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self.everywhere)

    def step(self, images: int, name: Literal["cns", "protected"]) -> jax.stages.Lowered:
        """One step on `images` concept images a chip; of CNS with as many prior ones, of the protected method with its
        pull."""
        method, count = METHODS[name](), images * self.mesh.size
        priors = count if method.prior_weight else 0
        spec = StepSpec(self.model, method, self.schedule, self.mesh, count, priors, 0.0)
        memory = jax.eval_shape(lambda params: method.empty(params, ROWS, self.width), self.params)
        h, w, c = self.latents
        ids, one = partial(self.array, dtype=jnp.int32), self.array((), jnp.int32)
        data = ConceptData(
            self.array((VIEWS, h, w, 2 * c)), ids((VIEWS, self.length)), one,
            self.array((PRIORS, h, w, c)), ids((PRIORS, self.length)), one,
        )  # fmt: skip
        pull = pull_shapes(memory.kernels, ProtectSettings().directions) if method.protects else None
        function = jax.jit(train_steps.__wrapped__, static_argnames=("spec", "steps"), donate_argnames="state")
        return function.lower(spec, 1, *step_shapes(spec, self.params, memory, data, pull))

    def sample(self, images: int, steps: int) -> jax.stages.Lowered:
        """Latents of `images` pictures: prompts, and `steps` steps with guidance."""
        rows, ids = self.array((ROWS, self.width)), partial(self.array, dtype=jnp.int32)

        def latents(params: Any, rows_rd: Any, ids_bl: Any, negative: Any, seeds: Any) -> jax.Array:
            return sample_latents.__wrapped__(
                Applied(params, rows_rd), ids_bl, negative, seeds, GUIDANCE, model=self.model, schedule=self.schedule,
                shape=self.latents, sampler="dpm++2m", steps=steps, mesh=self.mesh,
            )  # fmt: skip

        seeds = self.array((images,), jnp.uint32)
        return jax.jit(latents).lower(self.params, rows, ids((images, self.length)), ids((1, self.length)), seeds)

    def decode(self, images: int) -> jax.stages.Lowered:
        """`images` pictures from their latents."""
        pictures = partial(decode.__wrapped__, model=self.model, mesh=self.mesh)
        return jax.jit(pictures).lower(self.params["vae"], self.array((images, *self.latents)))

    def lower(self, program: Program) -> jax.stages.Lowered:
        """A program by its name."""
        if program.name == "sample":
            return self.sample(program.images, program.steps)
        return self.decode(program.images) if program.name == "decode" else self.step(program.images, program.method)
