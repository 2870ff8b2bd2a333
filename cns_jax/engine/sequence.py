"""Concept after concept: begin, fit, commit, save, show; resumes where it stopped."""

from __future__ import annotations

import dataclasses
import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cns_jax.core.mesh import replicate
from cns_jax.core.rng import stream
from cns_jax.core.settings import SettingsError, require
from cns_jax.core.tree import fingerprint
from cns_jax.core.types import Concept, ConceptData, Frozen, TrainState
from cns_jax.data.folder import check_words
from cns_jax.data.images import load_image
from cns_jax.data.prompts import sample_prompts, without_tokens
from cns_jax.engine.checkpoint import Checkpoints
from cns_jax.engine.fit import Fit, StopSignals
from cns_jax.engine.ledger import Ledger
from cns_jax.engine.prepare import (
    Hidden,
    caches,
    calibration_of,
    concept_data,
    data_shapes,
    find_concepts,
    latent_cache,
    most_views,
    priors_of,
    task_of,
)  # fmt: skip
from cns_jax.engine.prior import compile_priors
from cns_jax.engine.progress import Metrics
from cns_jax.engine.report.sheets import Row, sheet, thumbnail
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.step import StepSpec, initial_state, step_shapes, train_steps
from cns_jax.engine.studio import Studio, find_source
from cns_jax.engine.timings import Timings
from cns_jax.methods.cns import CNS, Memory
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.neurons.statistics import overlaps
from cns_jax.weights.snapshot import Snapshot, load_snapshot, save_snapshot

log = logging.getLogger(__name__)


def earlier_settings(settings: RunSettings) -> Path:
    """Where the run's settings are or will be.

    Raises SettingsError if the folder holds a run with other settings, naming what differs.
    """
    file = Path(settings.directory) / "config.json"
    if file.exists():
        now, before = _plain(settings), json.loads(file.read_text())
        differing = sorted(k for k in now if before.get(k) != now[k])
        if differing:
            raise SettingsError(
                f"{file.parent} holds a run with another {', '.join(differing)}; continue it with its own settings, "
                "or give this one another folder with --config.run=..."
            )
    return file


def claim(settings: RunSettings) -> Path:
    """The run's folder with the resolved settings in it. Raises SettingsError as `earlier_settings`."""
    file = earlier_settings(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_plain(settings), indent=2) + "\n")
    return file.parent


def _plain(settings: RunSettings) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def check_batch(settings: RunSettings, devices: int) -> None:
    """Refuse a step whose images cannot be split evenly over the devices."""
    images = settings.train.batch + settings.train.prior_batch
    require(
        images % devices == 0,
        f"train.batch + train.prior_batch = {images} images a step cannot be split over {devices} devices; give "
        f"--config.train.batch={settings.train.batch + -images % devices}, or use fewer devices, e.g. by "
        "CUDA_VISIBLE_DEVICES=0",
    )


class TrainingRun:
    """One run: the studio, the concepts' data, and where things are kept."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.timings = Timings()
        source = find_source(settings.address)
        self.concepts = find_concepts(settings)
        tokens = tuple(c.token for c in self.concepts)
        train = settings.train
        with self.timings.part("load"):
            self.studio = Studio.open(
                source, tokens, settings.reserved_rows, settings.resolution, train.fsdp, settings.compute, train.remat
            )
        check_words(self.concepts, self.studio.vocabulary)
        check_batch(settings, self.studio.mesh.size)
        self.directory = claim(settings)
        self.method: CNS = settings.method
        self.ledger = Ledger(self.directory)
        studio = self.studio
        self.ledger.check_base(studio.ids["model"], settings.model)
        self.base_kernels = fingerprint(cross_attention_kernels(studio.params["unet"]))
        self.key = jax.random.key(settings.seed)
        self.spec = StepSpec(
            studio.model, self.method, studio.schedule, studio.mesh, train.batch, train.prior_batch, train.snr_gamma,
            train.steps, min(train.decay_steps, train.steps),
        )  # fmt: skip

    def number(self, index: int, step: int) -> int:
        """The checkpoint number of a concept's step."""
        return index * (self.settings.train.steps + 1) + step

    def run(self) -> None:
        """Teach all concepts; raises Interrupted when asked to stop."""
        checkpoints = Checkpoints(self.directory / "checkpoints")
        metrics = Metrics(self.directory)
        try:
            with StopSignals() as stop:
                memory = self._teach_all(checkpoints, metrics, stop)
        finally:
            checkpoints.close()
            metrics.close()
            self.timings.save(self.directory / "timings.json")
        if self.settings.report.sheets:
            with self.timings.part("sample"):
                self._overview(memory)
        masks = [self.snapshot(i).mask for i in range(len(self.concepts))]
        (self.directory / "overlaps.json").write_text(json.dumps(overlaps(masks), indent=2) + "\n")
        self.timings.save(self.directory / "timings.json")

    def _teach_all(self, checkpoints: Checkpoints, metrics: Metrics, stop: StopSignals) -> Memory:
        studio, settings = self.studio, self.settings
        width = studio.model.text_encoder.hidden_size
        memory = replicate(studio.mesh, self.method.empty(studio.params, settings.reserved_rows, width))
        views, steps = most_views(settings, self.concepts), settings.train.steps
        newest = checkpoints.latest()
        if newest != self.number(len(self.concepts) - 1, steps):
            concept = self.concepts[0 if newest is None else divmod(newest, steps + 1)[0]]
            # encoder and sampler are traced in a fraction of the step's time, so XLA has work early
            latent_cache(studio, settings).ahead(concept.image_paths)
            compile_priors(studio, priors_of(settings, concept), settings.prior.sample, caches(settings) / "priors")
            shapes = step_shapes(self.spec, studio.params, memory, data_shapes(studio, settings, views))
            train_steps.ahead(self.spec, settings.train.steps_per_call, *shapes)
        first, state = self._resume(checkpoints, memory)
        if state is not None:
            memory, state = state
        for index in range(first, len(self.concepts)):
            concept = self.concepts[index]
            log.info("%s: concept %d of %d", concept.name, index + 1, len(self.concepts))
            with stop.at_once(f"encoding the pictures and making the prior images of {concept.name}"):
                data = concept_data(studio, settings, concept, views, self.timings)
            memory = self._teach(index, memory, state, data, checkpoints, metrics, stop)
            state = None
        return memory

    def _resume(self, checkpoints: Checkpoints, memory: Memory) -> tuple[int, Any]:
        newest = checkpoints.latest()
        if newest is None:
            return 0, None
        index, step = divmod(newest, self.settings.train.steps + 1)
        trainable, plan, _ = self.method.begin(self.key, self.studio.params, memory, self._task(index))
        like = {"memory": memory, "state": initial_state(self.method, trainable, plan)}
        found = checkpoints.restore(newest, replicate(self.studio.mesh, like))
        log.info("resuming %s at step %d", self.concepts[index].name, step)
        return index, (found["memory"], found["state"])

    def _task(self, index: int) -> Any:
        return task_of(self.studio, self.settings, self.concepts[index], self._calibration)

    @cached_property
    def _calibration(self) -> Hidden:
        return calibration_of(self.studio, self.settings)

    def _teach(
        self,
        index: int,
        memory: Memory,
        state: TrainState | None,
        data: ConceptData,
        checkpoints: Checkpoints,
        metrics: Metrics,
        stop: StopSignals,
    ) -> Memory:
        concept, studio = self.concepts[index], self.studio
        key = stream(self.key, "concept", index)
        with self.timings.part("select"):
            trainable, plan, statistics = self.method.begin(key, studio.params, memory, self._task(index))
        log.info(
            "%s: %d neurons (%.1f %% of K/V), %d of them shared with earlier concepts",
            concept.name, statistics["neurons"], 100 * statistics["mask_share"], statistics["regularized"],
        )  # fmt: skip
        start_rows = jnp.copy(trainable.rows_rd)
        memory, plan, key = replicate(studio.mesh, (memory, plan, key))
        state = replicate(studio.mesh, state or initial_state(self.method, trainable, plan))

        def save(step: int, state: TrainState) -> None:
            checkpoints.save(self.number(index, step), {"memory": memory, "state": state})

        fit = Fit(self.spec, self.settings.train, metrics, save, stop)
        with self.timings.part("train"):
            state = fit.run(concept.name, state, Frozen(studio.params, plan), data, key)
        after = self.method.commit(memory, plan, state.trainable)
        with self.timings.part("save"):
            self._record(index, after, plan.mask, statistics)
        if self.settings.report.sheets:
            with self.timings.part("sample"):
                self._sheet(index, (memory.kernels, start_rows), (after.kernels, after.rows_rd))
        return after

    def _record(self, index: int, memory: Memory, mask: Any, statistics: dict[str, float]) -> None:
        concept = self.concepts[index]
        weights = f"weights/{index + 1:02d}_{concept.name}.safetensors"
        save_snapshot(self.directory / weights, Snapshot(memory.kernels, np.asarray(memory.rows_rd), mask))
        row = {
            "name": concept.name,
            "token": concept.token,
            "class_word": concept.class_word,
            "kind": concept.kind,
            "images": len(concept.image_paths),
            "weights": weights,
            "mask": statistics,
        }
        self.ledger.record(index, self.studio.ids["model"], self.base_kernels, row)

    def snapshot(self, index: int) -> Snapshot:
        """The weights after concept `index`."""
        kernels = cross_attention_kernels(self.studio.params["unet"])
        return load_snapshot(self.ledger.snapshot(index), kernels)

    def _images(self, kernels: Any, rows_rd: Any, prompts: list[str]) -> list[np.ndarray]:
        unet, rows = self.method.merged(self.studio.params, Memory(None, kernels, jnp.asarray(rows_rd)))
        seeds = [self.settings.seed + i for i in range(len(prompts))]
        params = self.studio.with_unet(unet)
        return list(self.studio.generator.images(params, rows, prompts, seeds, self.settings.sample))

    def _sheet(self, index: int, before: tuple[Any, Any], after: tuple[Any, Any]) -> None:
        """Before and after the concept, with and without its token, same seeds."""
        concept = self.concepts[index]
        prompts = sample_prompts(concept)[:4]
        plain = [without_tokens(p) for p in prompts]
        learned = self._images(*after, prompts)
        rows = [
            Row("its pictures", self._photos(concept, len(prompts))),
            Row(f"before, with {concept.token}", self._images(*before, prompts)),
            Row(f"after, with {concept.token}", learned),
            Row("before, without the token", self._images(*before, plain)),
            Row("after, without the token", self._images(*after, plain)),
        ]
        file = self.directory / "samples" / f"{index + 1:02d}_{concept.name}.png"
        sheet(rows, prompts, file)
        thumbnail(learned[0], file.with_suffix(".jpg"))

    def _photos(self, concept: Concept, count: int) -> list[np.ndarray]:
        size = self.settings.resolution
        squares = [load_image(path, size) for path in concept.image_paths[:count]]
        return [np.round((x + 1) * 127.5).astype(np.uint8) for x in squares]

    def _overview(self, memory: Memory) -> None:
        """One row a concept: its pictures, the base model, right after its lesson, after the last lesson."""
        base = self.method.empty(self.studio.params, *memory.rows_rd.shape)
        rows = []
        for index, concept in enumerate(self.concepts):
            prompts = sample_prompts(concept)[:3]
            then = self.snapshot(index)
            rows.append(
                Row(
                    f"{concept.token} {concept.class_word}",
                    [
                        *self._photos(concept, 2),
                        *self._images(base.kernels, base.rows_rd, [without_tokens(p) for p in prompts[:2]]),
                        *self._images(then.kernels, then.rows_rd, prompts),
                        *self._images(memory.kernels, memory.rows_rd, prompts),
                    ],
                )
            )
        heads = ["taught with", "", "base model", "", "right after its lesson", "", "", "after the last lesson", "", ""]
        sheet(rows, heads, self.directory / "overview.png")


def run(settings: RunSettings) -> Path:
    """Run or resume a training run; returns its folder. Raises fit.Interrupted when asked to stop."""
    sequence = TrainingRun(settings)
    sequence.run()
    return sequence.directory
