"""The training step: draw a batch, predict the noise, move what the method trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cns_jax.core.mesh import everywhere, over_data, rows_over
from cns_jax.core.rng import stream
from cns_jax.core.types import Batch, ConceptData, Frozen, TrainState
from cns_jax.core.xla.compiling import jit
from cns_jax.diffusion.schedule import Schedule, add_noise, min_snr_weights, target
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Logs, Method, Step
from cns_jax.nn.model import Model
from cns_jax.nn.vae import at_noise
from cns_jax.protect.proximal import pulled


@dataclass(frozen=True)
class StepSpec:
    """All that is static in the step; hashable, so that equal specs share one compilation.

    steps, decay_steps: over the last decay_steps of a concept's steps the updates fall to 0 in a line.
    """

    model: Model
    method: Method
    schedule: Schedule
    mesh: Mesh
    batch: int
    prior_batch: int
    snr_gamma: float
    steps: int = 0
    decay_steps: int = 0


def draw(spec: StepSpec, key: jax.Array, step: jax.Array, data: ConceptData) -> Batch:
    """The batch of a step: concept views (VAE samples of cached moments), then prior images.

    What is random comes from two draws, since each one is a loop of integer arithmetic of its own to compile. Every
    device draws all of it; split over devices, the two parts would have to be moved to where their rows lie.
    """
    count = spec.batch + spec.prior_batch
    shares = jax.random.uniform(stream(key, "picks", step), (2 * count,))  # in [0, 1), of what is picked from
    of_views, of_priors, of_times = jnp.split(shares, (spec.batch, count))
    *_, height, width, twice = data.moments_vhwc.shape
    noise = jax.random.normal(stream(key, "noise", step), (spec.batch + count, height, width, twice // 2))
    view = (of_views * data.views.astype(jnp.float32)).astype(jnp.int32)
    latents = at_noise(data.moments_vhwc[view], noise[: spec.batch]) * spec.model.vae.scaling_factor
    ids, weights = data.ids_vl[view], jnp.full(spec.batch, 1.0 / spec.batch)
    if spec.prior_batch:
        prior = (of_priors * data.priors.astype(jnp.float32)).astype(jnp.int32)
        latents = jnp.concatenate((latents, data.prior_nhwc[prior]))
        ids = jnp.concatenate((ids, data.prior_ids_nl[prior]))
        of_each = spec.method.prior_weight / spec.prior_batch
        weights = jnp.concatenate((weights, jnp.full(spec.prior_batch, of_each)))
    t = (of_times * spec.schedule.num_train_timesteps).astype(jnp.int32)
    mask = data.mask_vhw
    if mask is not None:  # prior images are learned everywhere
        mask = jnp.concatenate((mask[view], jnp.ones((spec.prior_batch, height, width))))
    return Batch(*everywhere(spec.mesh, (latents, ids, weights, noise[spec.batch :], t, mask)))


def denoising_loss(spec: StepSpec, applied: Applied, batch: Batch) -> tuple[jax.Array, Logs]:
    """Eq. 8 without L_reg: the noise-prediction loss on concept images plus prior_weight times that on priors.

    spec.snr_gamma > 0 weighs timesteps (`min_snr_weights`); the logged parts stay unweighted by it. A loss mask
    multiplies each position's squared error before the mean over all positions.
    """
    count, t, noise = batch.latents_bhwc.shape[0], batch.timesteps_b, batch.noise_bhwc
    noisy = over_data(spec.mesh, add_noise(spec.schedule, batch.latents_bhwc, noise, t))
    predicted = predict(spec, applied, batch.ids_bl, noisy, t)
    wanted = target(spec.schedule, batch.latents_bhwc, noise, t)
    error_bhwc = jnp.square(predicted.astype(jnp.float32) - wanted)
    if batch.mask_bhw is not None:
        error_bhwc *= over_data(spec.mesh, batch.mask_bhw)[..., None]
    error_b = error_bhwc.mean((1, 2, 3))
    of_concept_b = jnp.arange(count) < spec.batch  # a slice of rows that are split over devices would be moved
    logs = {"concept_loss": jnp.where(of_concept_b, error_b, 0).sum() / spec.batch}
    if spec.prior_batch:
        logs["prior_loss"] = jnp.where(of_concept_b, 0, error_b).sum() / spec.prior_batch
    weight_b = batch.weight_b * min_snr_weights(spec.schedule, t, spec.snr_gamma)
    return (error_b * weight_b).sum(), logs


def predict(spec: StepSpec, applied: Applied, ids_bl: jax.Array, noisy_bhwc: jax.Array, t: jax.Array) -> jax.Array:
    """The UNet's output for prompts given as token ids."""
    ids = over_data(spec.mesh, ids_bl)
    text = applied.conditioning(applied.encode(spec.model, ids), ids)
    return applied.predict(spec.model, noisy_bhwc, t, text, spec.method.detach_begin)


def method_loss(
    spec: StepSpec, base: Mapping[str, Any], plan: Any, trainable: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, Logs]:
    """What the method descends. key: of this step, for draws of the method's own."""
    step = Step(base, plan, batch, key, partial(predict, spec), partial(denoising_loss, spec, batch=batch))
    return spec.method.loss(step, trainable)


def one_step(
    spec: StepSpec, state: TrainState, frozen: Frozen, data: ConceptData, key: jax.Array
) -> tuple[TrainState, Logs]:
    """One optimizer step; pure."""
    batch, own_key = draw(spec, key, state.step, data), stream(key, "method", state.step)

    def loss(trainable: Any) -> tuple[jax.Array, Logs]:
        return method_loss(spec, frozen.base, frozen.plan, trainable, batch, own_key)

    with rows_over(spec.mesh):
        (value, logs), gradient = jax.value_and_grad(loss, has_aux=True)(state.trainable)
    transform = spec.method.optimizer(frozen.plan)
    updates, opt_state = transform.update(gradient, state.opt_state, state.trainable)
    if frozen.pull is not None:
        kernels = pulled(frozen.pull, updates.kernels, state.trainable.kernels)
        mask = spec.method.mask(frozen.plan, state.trainable)
        if mask is not None:  # the pull moves every weight
            kernels = jax.tree.map(lambda m, u: jnp.where(m, u, 0), mask, kernels)
        updates = updates._replace(kernels=kernels)
    if spec.decay_steps:
        left = optax.linear_schedule(1.0, 0.0, spec.decay_steps, spec.steps - spec.decay_steps)(state.step)
        updates = jax.tree.map(lambda u: left * u, updates)
    trainable = optax.apply_updates(state.trainable, updates)
    logs |= {"loss": value, "l_reg": spec.method.penalty(frozen.plan, state.trainable)}
    return TrainState(state.step + 1, trainable, opt_state), logs


@jit(static_argnames=("spec", "steps"), donate_argnames="state")
def train_steps(
    spec: StepSpec, steps: int, state: TrainState, frozen: Frozen, data: ConceptData, key: jax.Array
) -> tuple[TrainState, Logs]:
    """`steps` optimizer steps in one call to the device, and the mean of each log over them. `state` is donated.

    key: of this concept; every draw folds in the step's number, so a resumed run repeats them.
    """

    def body(state: TrainState, _: None) -> tuple[TrainState, Logs]:
        return one_step(spec, state, frozen, data, key)

    state, logs = jax.lax.scan(body, state, None, length=steps)
    return state, jax.tree.map(jnp.mean, logs)


def step_shapes(
    spec: StepSpec, params: Mapping[str, Any], memory: Any, data: ConceptData, pull: Any = None
) -> tuple[Any, ...]:
    """state, frozen, data and key of `train_steps`, as shapes on all devices of the mesh. memory: of the method; it,
    data and pull may be shapes; params, which may be too, stay as they lie."""

    def on_mesh(tree: Any) -> Any:
        everywhere = NamedSharding(spec.mesh, PartitionSpec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree)

    trainable, plan = spec.method.shapes(params, memory)
    state = jax.eval_shape(partial(initial_state, spec.method), trainable, plan)
    base = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params)
    return (
        on_mesh(state),
        Frozen(base, on_mesh(plan), on_mesh(pull)),
        *on_mesh((data, jax.eval_shape(jax.random.key, 0))),
    )


@partial(jax.jit, static_argnames="method")
def initial_state(method: Method, trainable: Any, plan: Any) -> TrainState:
    """Step 0 with fresh optimizer moments."""
    return TrainState(jnp.zeros((), jnp.int32), trainable, method.optimizer(plan).init(trainable))
