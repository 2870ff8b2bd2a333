"""--dry_run: check all that a run needs and print what it would do, before any weight moves or GPU is rented."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.mesh import make_mesh
from cns_jax.core.settings import require
from cns_jax.core.tree import count, map_named
from cns_jax.core.types import Batch, Concept
from cns_jax.core.xla.flops import counting_mesh, flops
from cns_jax.data.words import check_words
from cns_jax.engine.draw.prior import Part, prior_file
from cns_jax.engine.draw.studio import compute_dtype, own_sampler, stored_dtype
from cns_jax.engine.runs.folder import check_base
from cns_jax.engine.runs.ledger import Ledger
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.buckets import by_bucket
from cns_jax.engine.teach.layout import Layout, check_data, layout_of
from cns_jax.engine.teach.lessons import Lessons, lessons_of, steps_of
from cns_jax.engine.teach.own_priors import own_priors
from cns_jax.engine.teach.prepare import priors_of
from cns_jax.engine.teach.protecting import directions_of
from cns_jax.engine.teach.protection_plan import moment_bytes, protection_lines
from cns_jax.engine.teach.sequence import check_batch
from cns_jax.engine.teach.step import StepSpec, initial_state, method_loss
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.protect.proximal import pull_shapes, pulled
from cns_jax.text.tokenizer import load_tokenizer
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.pipeline import Source


@dataclass(frozen=True)
class StepCost:
    """flops: of one training step as XLA counts them before fusing, protection's included; saved: bytes that the
    forward pass keeps for the backward pass; frozen, trained: bytes of weights and of all that learns, with what its
    optimizer and its method hold beside; learns: how many numbers learn, without the token rows; pull: bytes that
    protection reads each step."""

    flops: float
    saved: int
    frozen: int
    trained: int
    learns: int
    pull: int


def plan(settings: RunSettings) -> list[str]:
    """Check model files, weights, concepts, tokens, shapes, disk space and the run's folder; returns the plan's lines.

    Raises what the run itself would raise, and SettingsError if the disk is too small or the folder not writable.
    """
    directory = Path(settings.directory)
    source = find_source(settings.address)
    with tempfile.TemporaryDirectory() as scratch:  # the drawn sets write their pictures
        lessons = lessons_of(settings, drawn_into=Path(scratch))
        concepts, tokens = lessons.ahead, lessons.tokens
        check_data(source.model, settings, concepts)
        layout = layout_of(source.model, settings, concepts)
        buckets = _bucket_lines(concepts, layout)
        priors = _generated(settings, concepts, layout)
    vocabulary = Vocabulary(load_tokenizer(source.tokenizer), tokens, settings.rows_for(len(tokens)))
    check_words(concepts, vocabulary)
    vocabulary.encode(
        [
            prompt
            for concept in concepts
            for prompt in settings.method.prompts(concept, settings.train.views, settings.seed)
        ]
    )  # warns of cuts
    check_batch(settings, make_mesh(settings.train.fsdp).size)
    loaded = source.load(keep=lambda name, leaf: None)
    base = loaded.ids["model"]
    check_base(settings, base)
    protection = protection_lines(settings, source, vocabulary, loaded.ids["text_encoder"])
    cost = step_cost(settings, source)
    needed = disk_bytes(settings, source, concepts, priors)
    free = _free_bytes(directory, "run")
    _free_bytes(settings.caches, "prior.directory")
    require(
        needed < free,
        f"the run needs about {needed / 1e9:.1f} GB on the disk of {directory}, {free / 1e9:.1f} GB are free; make "
        "room, or choose another place with --config.run=...",
    )
    return [
        *_model_lines(settings, source, base),
        *_lesson_lines(settings, lessons),
        *buckets,
        *_training_lines(settings, source, cost, _steps(settings, lessons)),
        *protection,
        *_prior_lines(settings, base, concepts, priors),
        f"disk: about {needed / 1e9:.2f} GB of {free / 1e9:.0f} GB free, into {directory}",
        "all checks passed; " + ("run the same command without --dry_run" if concepts else "there is nothing to teach"),
    ]


def step_cost(settings: RunSettings, source: Source) -> StepCost:
    """Trace one step's gradient on shapes alone; nothing is allocated or compiled."""
    dtype = compute_dtype(settings.compute)
    model = dataclasses.replace(source.model, dtype=None if dtype == jnp.float32 else dtype, remat=settings.train.remat)
    train, method = settings.train, settings.method
    spec = StepSpec(model, method, source.schedule, counting_mesh(), train.batch, train.prior_batch, train.snr_gamma)

    def shape(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    base = map_named(lambda name, leaf: shape(leaf.shape, stored_dtype(name, dtype)), source.shapes)
    memory = memory_shapes(settings, base, model.text_encoder.hidden_size)
    trainable, plan = method.shapes(base, memory)
    images = train.batch + train.prior_batch
    latents = model.latent_shape(settings.resolution, settings.resolution)
    batch = Batch(
        shape((images, *latents), jnp.float32),
        shape((images, model.text_encoder.max_position_embeddings), jnp.int32),
        shape((images,), jnp.float32),
        shape((images, *latents), jnp.float32),
        shape((images,), jnp.int32),
    )

    def loss(trainable: Any, plan: Any, base: Any, batch: Batch, key: jax.Array) -> jax.Array:
        return method_loss(spec, base, plan, trainable, batch, key)[0]

    arguments = (trainable, plan, base, batch, jax.eval_shape(jax.random.key, 0))
    work, pull = flops(jax.grad(loss), *arguments), 0
    if settings.protects:
        kernels = trainable.kernels
        shapes = pull_shapes(kernels, directions_of(settings, model.text_encoder.hidden_size))
        work += flops(pulled, shapes, kernels, kernels)
        pull = _bytes(shapes)
    state = jax.eval_shape(partial(initial_state, method), trainable, plan)
    held = _bytes(state) + _bytes(plan) + _bytes_beside(memory, plan)
    learns = count(trainable) - count(trainable.rows_rd)
    return StepCost(work, _saved_bytes(loss, arguments), _bytes(base), held, learns, pull)


def memory_shapes(settings: RunSettings, base: Any, width: int) -> Any:
    """Shapes of what the method remembers; base: shapes of the parameters; width: of the text features."""
    return jax.eval_shape(lambda base: settings.method.empty(base, settings.rows_for(0), width), base)


def _bytes_beside(memory: Any, plan: Any) -> int:
    """Bytes of what memory holds and the plan does not, which shares its arrays."""
    shared = Counter((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(plan))
    left = Counter((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(memory)) - shared
    return sum(int(np.prod(shape)) * jnp.dtype(dtype).itemsize * times for (shape, dtype), times in left.items())


def _saved_bytes(loss: Any, arguments: tuple[Any, ...]) -> int:
    """Bytes of what the backward pass needs of the forward pass, weights and batch not counted."""

    def forward(trainable: Any, *rest: Any) -> Any:
        return jax.vjp(lambda t: loss(t, *rest), trainable)[1]  # its leaves are what it saves

    jaxpr = jax.make_jaxpr(forward)(*arguments).jaxpr
    given = {id(v) for v in (*jaxpr.invars, *jaxpr.constvars)}
    saved = {id(v): v.aval for v in jaxpr.outvars if id(v) not in given and hasattr(v.aval, "dtype")}
    return sum(int(np.prod(aval.shape)) * aval.dtype.itemsize for aval in saved.values())


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * _each(leaf) for leaf in jax.tree.leaves(tree))


def _each(leaf: Any) -> int:
    return 0 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize


def stored_bytes(settings: RunSettings, source: Source) -> int:
    """Of what a run keeps after each lesson, in its weights/: the method's memory, the lesson's mask and its moment."""
    memory = memory_shapes(settings, source.shapes, source.model.text_encoder.hidden_size)
    bits = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(memory) if leaf.dtype == bool)
    others = sum(_bytes(leaf) for leaf in jax.tree.leaves(memory) if leaf.dtype != bool)
    mask = count(cross_attention_kernels(source.shapes["unet"])) if settings.method.selects else 0
    return others + -(-bits // 8) + -(-mask // 8) + moment_bytes(source)


def disk_bytes(settings: RunSettings, source: Source, concepts: Sequence[Concept], generated: Sequence[Part]) -> int:
    """An upper estimate of what a run writes: snapshots and moments, two checkpoints, encoded pictures, prior images,
    sheets."""
    width = source.model.text_encoder.hidden_size
    memory = memory_shapes(settings, source.shapes, width)
    state = jax.eval_shape(partial(initial_state, settings.method), *settings.method.shapes(source.shapes, memory))
    h, w, c = source.model.latent_shape(settings.resolution, settings.resolution)
    pictures = sum(len(concept.image_paths) for concept in concepts) * settings.train.views
    priors = sum(len(part.prompts) for part in generated)
    priors += settings.prior.images * len(concepts) if settings.prior.folder else 0
    snapshots = len(concepts) * stored_bytes(settings, source) + moment_bytes(source)
    checkpoints = 2 * (_bytes(memory) + _bytes(state))
    sheets = len(concepts) * 30 * settings.resolution**2 * 3
    return snapshots + checkpoints + pictures * h * w * 2 * c * 4 + priors * h * w * c * 4 + sheets


def _free_bytes(directory: Path, setting: str) -> int:
    """Free bytes where `directory` lies or will lie. Raises SettingsError, naming the setting that chooses another
    folder, if nothing can be written there."""
    other = f"choose another folder with --config.{setting}=..."
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    link = next((p for p in (directory, *directory.parents) if p.is_symlink() and not p.exists()), None)
    require(link is None, f"{link} is a link to nothing; {other}")
    require(place.is_dir(), f"{place} is a file; {other}")
    require(os.access(place, os.W_OK), f"{place} is not writable; {other}")
    return shutil.disk_usage(place).free


def _model_lines(settings: RunSettings, source: Source, base: str) -> list[str]:
    sizes = {part: count(tree) / 1e6 for part, tree in source.shapes.items()}
    parts = ", ".join(f"{part} {size:.1f} M" for part, size in sizes.items())
    return [
        f"model: {settings.model} ({base}): {parts}; predicts {source.schedule.prediction_type}, "
        f"own sampler {own_sampler(source)}; every weight finite",
        f"computes in {compute_dtype(settings.compute).name} on {jax.device_count()} {jax.devices()[0].device_kind}",
    ]


def _steps(settings: RunSettings, lessons: Lessons) -> list[int]:
    """Of the lessons to come."""
    steps = [steps_of(settings, concept) for concept in lessons.ahead]
    if lessons.extends:
        steps[0] -= Ledger(Path(settings.directory)).read()["concepts"][-1]["steps"]
    return steps


def _counted(concepts: int) -> str:
    return f"{concepts} concept{'s' * (concepts != 1)}"


def _lesson_lines(settings: RunSettings, lessons: Lessons) -> list[str]:
    """What the run knows, what is to be taught, and what a user should know of it."""
    lines = [f"note: {note}" for note in lessons.notes]
    if lessons.taught:
        known = ", ".join(f"{row['name']} ({row['token']})" for row in lessons.taught)
        lines.append(f"{settings.directory} knows {_counted(len(lessons.taught))} already: {known}")
    if lessons.extends:
        lines.append(f"the last lesson goes on to step {steps_of(settings, lessons.ahead[0])}:")
    elif not lessons.ahead:
        lines.append("nothing is left to teach")
    else:
        lines.append(f"{_counted(len(lessons.ahead))}{' to add' if lessons.taught else ''}:")
    for concept in lessons.ahead:
        captioned = sum(caption is not None for caption in concept.captions)
        source = (
            f"{captioned} with captions"
            if captioned
            else f"as {settings.method.prompts(concept, 1, settings.seed)[0]!r}"
        )
        masked = sum(map(bool, concept.mask_paths))
        masks = f", {masked} with loss masks" if masked else ""
        masks += ", transparency as loss mask" if settings.train.alpha_mask else ""
        lines.append(
            f"  {concept.token} {concept.class_word} ({concept.kind}): {len(concept.image_paths)} pictures, {source}"
            f"{masks}"
        )
    return lines


def _training_lines(settings: RunSettings, source: Source, cost: StepCost, lessons: Sequence[int]) -> list[str]:
    """lessons: steps of each."""
    train = settings.train
    unet = count(source.shapes["unet"])
    size = f"{cost.learns / 1e6:.2f} M numbers, {cost.learns / unet:.2%} of the UNet's"
    weights = f"{settings.method.learns} ({size}) and " if cost.learns else ""
    steps = sum(lessons)
    each = " or ".join(str(n) for n in sorted(set(lessons))) or train.steps
    memory = cost.frozen + cost.trained + cost.saved + cost.pull
    images = f"{train.batch} + {train.prior_batch}" if train.prior_batch else f"{train.batch}"
    pull = f", protection {cost.pull / 1e9:.2f}" if cost.pull else ""
    return [
        f"trains: {weights}one token row of {source.model.text_encoder.hidden_size}; "
        f"{stored_bytes(settings, source) / 1e6:.2f} MB are kept of a lesson",
        f"steps: {each} a concept, {steps} in all, {images} image{'s' * (images != '1')} of "
        f"{settings.resolution} px each: {cost.flops / 1e12:.3g} TFLOP a step, {cost.flops * steps / 1e15:.3g} PFLOP",
        f"memory: at least {memory / 1e9:.1f} GB a device: weights {cost.frozen / 1e9:.2f}, what learns "
        f"{cost.trained / 1e9:.2f}{pull}, kept for the backward pass {cost.saved / 1e9:.2f}"
        + ("" if train.remat else " (less with --config.train.remat=True)"),
    ]


def _bucket_lines(concepts: Sequence[Concept], layout: Layout) -> list[str]:
    """Nothing where all pictures are of one size."""
    found = [by_bucket(concept, layout.sizes) for concept in concepts]
    counts = [sum(len(of[size].image_paths) for of in found if size in of) for size in layout.sizes]
    each = (f"{w} x {h} ({count} pictures)" for (w, h), count in zip(layout.sizes, counts, strict=True))
    return [f"aspect buckets, a compilation each: {', '.join(each)}"] if len(counts) > 1 else []


def _generated(settings: RunSettings, concepts: Sequence[Concept], layout: Layout) -> list[Part]:
    """Prior images, those that concepts share once."""
    found = [parts for concept in concepts for parts in priors_of(settings, concept, layout).values()]
    return list(dict.fromkeys(itertools.chain(*found)))


def _prior_lines(settings: RunSettings, base: str, concepts: Sequence[Concept], generated: Sequence[Part]) -> list[str]:
    if settings.train.prior_batch == 0:
        reason = "train.prior_batch is 0"
        if settings.method.prior_switch is None:
            reason = f"the method {settings.method.name} has none"
        elif not settings.method.prior_weight:
            name, _ = settings.method.prior_switch
            reason = f"method.{name} is {getattr(settings.method, name)}"
        return [f"prior images: none ({reason})"]
    if settings.prior.folder:
        own = zip(concepts, own_priors(settings, concepts), strict=True)
        return [
            f"prior images of {c.name}: {len(o.paths)} of your own {o.found} pictures in {o.folder}" for c, o in own
        ]
    sample, folder = settings.prior.sample, settings.caches / "priors"
    lines, compute = [], compute_dtype(settings.compute).name
    for part in generated:
        file = prior_file(base, compute, part, sample, folder)
        width, height = part.size
        size = f" at {width} x {height}" if settings.train.buckets else ""
        state = "kept from before" if file.exists() else f"to make, {sample.steps} steps each"
        lines.append(f"prior images: {len(part.prompts)} of {part.name}{size}: {state}")
    return lines
