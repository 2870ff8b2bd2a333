"""A lesson of CNS on the shipped miniature beside the PyTorch reference: masks, losses, gradients, weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("diffusers")
import torch

from benchmarks.torch_reference.lesson import Lesson, Rates, TorchBatch
from benchmarks.torch_reference.networks import cumulative_alphas, load_networks
from benchmarks.torch_reference.selection import concept_neurons, feature_norms
from cns_jax.core.mesh import make_mesh
from cns_jax.core.tree import flatten
from cns_jax.core.types import Batch, ConceptData, Frozen, Trainable
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source, miniature_folder
from cns_jax.engine.settings import MINIATURE
from cns_jax.engine.teach.step import StepSpec, draw, initial_state, method_loss, train_steps
from cns_jax.methods.base import Task
from cns_jax.methods.cns import CNS, Memory, Plan
from cns_jax.neurons import select
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.weights.layout import tensors
from cns_jax.weights.locate import Address

STEPS, BATCH, PRIORS, SNR_GAMMA = 20, 2, 1, 1.0
CAPTIONS = ["a photo of a cat on the beach", "a photo of a cat in the snow", "a photo of a cat in space"]
CALIBRATION = ["a photo of a red mug in the city", "a sketch of a dog", "a watercolor of a blue boat on the beach",
               "pixel art of a green car in the desert"]  # fmt: skip


class Oracle(NamedTuple):
    """One lesson, the second of a run, on both sides."""

    spec: StepSpec
    plan: Plan
    trainable: Trainable
    base: dict
    data: ConceptData
    lesson: Lesson
    task: Task

    def batch(self, step: int) -> tuple[TorchBatch, jax.Array]:
        """Our batch of this step with its noise and timesteps, for PyTorch; and our lesson's key."""
        key = jax.random.key(5)
        batch = draw(self.spec, key, jnp.asarray(step), self.data)
        nchw = lambda x: torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))  # noqa: E731
        ids, weight, t = (torch.tensor(np.asarray(x)) for x in (batch.ids_bl, batch.weight_b, batch.timesteps_b))
        return TorchBatch(nchw(batch.latents_bhwc), ids.long(), weight, nchw(batch.noise_bhwc), t), key


def to_torch(tree, dtype=np.float32) -> dict[str, torch.Tensor]:
    """Our kernels or masks by PyTorch's names, (out, in)."""
    return {name: torch.tensor(leaf) for name, leaf in tensors(flatten(tree), dtype).items()}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """W_{m-1} off W_0 by noise in a part of the weights, those of "earlier concepts"; lambdas that can be felt."""
    method = CNS(
        ratio=0.3, positions="all", lambda1=0.1, lambda2=0.01, lr_neurons=1e-3, lr_token=5e-3, prior_weight=0.7
    )
    studio = Studio.open(find_source(Address(MINIATURE)), ("<toy>", "<other>"), 2, 64)
    rng = np.random.default_rng(0)
    kernels = jax.tree.map(jnp.asarray, cross_attention_kernels(studio.params["unet"]))
    used = jax.tree.map(lambda w: jnp.asarray(rng.random(w.shape) < 0.5), kernels)
    moved = jax.tree.map(lambda w, m: w + m * 0.02 * rng.standard_normal(w.shape).astype(np.float32), kernels, used)
    rows = jnp.stack([studio.embedding_of("cat"), studio.embedding_of("mug")])
    row = studio.vocabulary.row_of("<toy>")
    parts = []
    for prompts in (CAPTIONS, CALIBRATION):
        ids = studio.vocabulary.encode(prompts)
        parts += [studio.encode(ids), jnp.asarray(studio.vocabulary.caption_mask(ids, method.positions))]
    task = Task(*parts, row, studio.embedding_of("cat"))
    trainable, plan, _ = method.begin(jax.random.key(0), studio.params, Memory(used, moved, rows), task)
    latents = lambda n, c: jnp.asarray(rng.standard_normal((n, 16, 16, c)), jnp.float32)  # noqa: E731
    prompt = studio.vocabulary.encode(["a photo of a <toy> cat on the beach", "a photo of a cat"])
    data = ConceptData(
        latents(6, 16) * 0.5, jnp.broadcast_to(prompt[0], (6, prompt.shape[1])), jnp.asarray(6),
        latents(4, 8), jnp.broadcast_to(prompt[1], (4, prompt.shape[1])), jnp.asarray(4),
    )  # fmt: skip
    first = jax.devices()[:1]
    spec = StepSpec(studio.model, method, studio.schedule, make_mesh(devices=first), BATCH, PRIORS, SNR_GAMMA)
    rates = Rates(method.lr_neurons, method.lr_token, method.lambda1, method.lambda2, SNR_GAMMA)
    torch.set_num_threads(1)  # two processes of tests share two cores; threads that wait for each other crawl
    cpu = torch.device("cpu")
    networks = load_networks(miniature_folder(), torch.tensor(np.asarray(trainable.rows_rd)), cpu)
    masks = to_torch(plan.mask, bool), to_torch(used, bool)
    alphas = cumulative_alphas(miniature_folder(), cpu)
    lesson = Lesson(*networks, alphas, row, *masks, rates, start=to_torch(moved))
    ours = jax.device_put((plan, trainable, studio.params, data), first[0])
    return Oracle(spec, *ours, lesson, task)


def relative(ours: dict[str, np.ndarray], theirs: dict[str, torch.Tensor]) -> float:
    """||ours - theirs|| / ||theirs|| over all tensors together."""
    pairs = [(np.asarray(ours[n], np.float64), theirs[n].detach().double().numpy()) for n in theirs]
    return (sum(((a - b) ** 2).sum() for a, b in pairs) / sum((b**2).sum() for _, b in pairs)) ** 0.5


def test_masks_are_equal(oracle):
    task, names = oracle.task, to_torch(cross_attention_kernels(oracle.base["unet"]))
    norms = [
        feature_norms(torch.tensor(np.asarray(hidden)), torch.tensor(np.asarray(mask)))
        for hidden, mask in (
            (task.caption_hidden_bld, task.caption_mask_bl), (task.calibration_hidden_kld, task.calibration_mask_kl)
        )
    ]  # fmt: skip
    theirs, ours = concept_neurons(names, *norms, ratio=0.3), to_torch(oracle.plan.mask, bool)
    assert select.count(oracle.plan.mask) > 1000
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_loss_and_gradients_agree(oracle):
    """Of the first step, L_reg's part included."""
    batch, key = oracle.batch(0)

    def of(trainable: Trainable, batch: Batch) -> Any:
        return method_loss(oracle.spec, oracle.base, oracle.plan, trainable, batch, key)

    ours_batch = draw(oracle.spec, key, jnp.asarray(0), oracle.data)
    (loss, _), gradient = jax.jit(jax.value_and_grad(lambda t: of(t, ours_batch), has_aux=True))(oracle.trainable)
    plan = oracle.plan
    kernels = jax.tree.map(lambda g, m: jnp.where(m, g, 0), gradient.kernels, plan.mask)
    theirs = oracle.lesson.gradients(batch)
    assert float(loss) == pytest.approx(float(theirs), rel=1e-5)
    # at W = W_{m-1} L_reg pulls to W_0 alone
    pull = jax.tree.map(
        lambda g, w, w0, m: g + jnp.where(m, 2 * plan.lambda2 * (w - w0), 0),
        kernels, plan.previous, plan.base, plan.m_reg,
    )  # fmt: skip
    error = relative(to_torch(pull), {n: p.grad for n, p in oracle.lesson.kernels.items()})
    rows = jnp.where(plan.row_r[:, None], gradient.rows_rd, 0)
    row_error = relative({"rows": rows}, {"rows": oracle.lesson.rows.grad})
    print(f"gradients: kernels {error:.1e}, rows {row_error:.1e}")
    assert error < 1e-4 and row_error < 1e-4


def test_weights_after_twenty_steps_agree(oracle):
    """What the steps changed, relative to how far; Adam divides by the gradient's size, so small errors grow."""
    state = initial_state(oracle.spec.method, jax.tree.map(jnp.copy, oracle.trainable), oracle.plan)
    begun = {n: p.detach().clone() for n, p in oracle.lesson.kernels.items()}
    row_begun = oracle.lesson.rows.detach().clone()
    key = oracle.batch(0)[1]
    frozen = Frozen(oracle.base, oracle.plan)
    for step in range(STEPS):
        state, logs = train_steps(oracle.spec, 1, state, frozen, oracle.data, key)
        theirs = oracle.lesson.step(oracle.batch(step)[0])
        assert float(logs["loss"]) == pytest.approx(float(theirs), rel=1e-4), f"step {step}"
    moved = {n: p - begun[n] for n, p in oracle.lesson.kernels.items()}
    ours = {n: w - begun[n] for n, w in to_torch(state.trainable.kernels).items()}
    error = relative({n: w.numpy() for n, w in ours.items()}, moved)
    rows = np.asarray(state.trainable.rows_rd) - row_begun.numpy()
    row_error = relative({"rows": rows}, {"rows": oracle.lesson.rows - row_begun})
    print(f"change of 20 steps: kernels {error:.1e}, rows {row_error:.1e}")
    assert error < 1e-3 and row_error < 1e-3
