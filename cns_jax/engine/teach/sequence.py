"""Concept after concept: begin, fit, commit, save, show; resumes where it stopped."""

from __future__ import annotations

import dataclasses
import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cns_jax.core.files import replacing
from cns_jax.core.mesh import make_mesh, replicate
from cns_jax.core.rng import key_of, stream
from cns_jax.core.settings import SettingsError, require
from cns_jax.core.tree import fingerprint
from cns_jax.core.types import Concept, Frozen, TrainState
from cns_jax.core.xla.platform import compute_ops
from cns_jax.data.folder import DataError
from cns_jax.data.words import check_words
from cns_jax.engine.checkpoint import Checkpoints
from cns_jax.engine.draw.generator import PictureError
from cns_jax.engine.draw.kept import forget_pictures
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.lock import holding
from cns_jax.engine.progress import Metrics
from cns_jax.engine.runs.concepts import keep_pictures, taught_concepts
from cns_jax.engine.runs.folder import check_base, claim
from cns_jax.engine.runs.learned import Learned, concept_of, read_snapshot, snapshot_files
from cns_jax.engine.runs.ledger import Ledger, kept
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import MOST_STEPS, RunSettings
from cns_jax.engine.teach.fit import Diverged, Fit, StopSignals
from cns_jax.engine.teach.layout import LessonData, check_data, layout_of
from cns_jax.engine.teach.lessons import Lessons, lesson_row, lessons_of, newest, steps_of
from cns_jax.engine.teach.prepare import (
    Hidden,
    calibration_of,
    compile_ahead,
    concept_data,
    data_shapes,
    task_of,
)  # fmt: skip
from cns_jax.engine.teach.protecting import Holder, Protection, base_prompts
from cns_jax.engine.teach.showing import Showing
from cns_jax.engine.teach.step import StepSpec, initial_state, step_shapes, train_steps
from cns_jax.engine.timings import Timings
from cns_jax.methods.applied import Applied
from cns_jax.methods.base import Method
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.neurons.statistics import overlaps
from cns_jax.protect.certificate import Group, told
from cns_jax.weights.snapshot import Snapshot, save_snapshot

log = logging.getLogger(__name__)


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
    """One run: the studio, the lessons to come, and where things are kept."""

    def __init__(self, settings: RunSettings, lessons: Lessons | None = None) -> None:
        """lessons: the run's, where they are known already."""
        self.settings = settings
        self.timings = Timings()
        source = find_source(settings.address)
        self.lessons = lessons or lessons_of(settings)
        check_data(source.model, settings, self.lessons.ahead)
        check_batch(settings, make_mesh(settings.train.fsdp).size)
        tokens, train = self.lessons.tokens, settings.train
        self.rows = settings.rows_for(len(tokens))
        with self.timings.part("load"):
            self.studio = Studio.open(
                source, tokens, self.rows, settings.resolution, train.fsdp, settings.compute, train.remat
            )
        check_words(self.lessons.ahead, self.studio.vocabulary)
        studio = self.studio
        check_base(settings, studio.ids["model"])
        self.directory = claim(settings)
        for note in self.lessons.notes:
            log.warning("%s", note)
        self.first = len(self.lessons.taught)
        self.method: Method = settings.method
        self.ledger = Ledger(self.directory)
        self.kernels = cross_attention_kernels(studio.params["unet"])
        self.base_kernels = fingerprint(self.kernels)
        self.key = key_of(settings.seed)
        self.showing = Showing(self.directory, settings, studio)
        self.protection = Protection(studio, settings)
        self.known_to_base = base_prompts(source, settings.address)

    def spec(self, steps: int) -> StepSpec:
        """What is static in the step of a lesson of so many steps."""
        train, studio = self.settings.train, self.studio
        return StepSpec(
            studio.model, self.method, studio.schedule, studio.mesh, train.batch, train.prior_batch, train.snr_gamma,
            *((steps, min(train.decay_steps, steps)) if train.decay_steps else (0, 0)),
        )  # fmt: skip

    def number(self, index: int, step: int) -> int:
        """The checkpoint number of a concept's step."""
        return index * MOST_STEPS + step

    def concept(self, index: int) -> Concept:
        """A concept of a lesson to come."""
        return self.lessons.ahead[index - self.first]

    def run(self) -> None:
        """Teach all concepts; raises Interrupted when asked to stop, SettingsError if a lesson diverges."""
        with self.timings:
            self._run()

    def _run(self) -> None:
        overlap = self.directory / "overlaps.json"  # written last, so what it tells of is whole
        if self.lessons.ahead:
            overlap.unlink(missing_ok=True)
            self._teach_ahead()
        if overlap.exists():
            return
        if self.settings.report.sheets:
            with self.timings.part("sample"):
                self._overview()
        found = (self.snapshot(i).mask for i in range(len(self.ledger.read()["concepts"])))
        masks = [mask for mask in found if mask is not None]
        with replacing(overlap) as temporary:
            temporary.write_text(json.dumps(overlaps(masks), indent=2) + "\n")
        self.timings.save(self.directory / "timings.json")

    def _teach_ahead(self) -> None:
        checkpoints = Checkpoints(self.directory / "checkpoints")
        metrics = Metrics(self.directory)
        try:
            with StopSignals() as stop:
                self._teach_all(checkpoints, metrics, stop)
        except Diverged as error:
            raise SettingsError(self._advice(error)) from None
        finally:
            checkpoints.close()
            metrics.close()
            self.timings.save(self.directory / "timings.json")

    def _advice(self, error: Diverged) -> str:
        learned, method = self.ledger.read()["concepts"], dataclasses.asdict(self.settings.method)
        rates = ", ".join(f"method.{name}={value}" for name, value in method.items() if name.startswith("lr_"))
        after = f" --config.after={self.directory}" if learned else ""
        return (
            f"{error}; training stopped, and nothing of this lesson went into the model. A rate is too high, most "
            f"likely ({rates}): lower it, and run in another folder,{after} --config.run=..."
        )

    def _teach_all(self, checkpoints: Checkpoints, metrics: Metrics, stop: StopSignals) -> None:
        studio, settings, first = self.studio, self.settings, self.first
        memory = replicate(studio.mesh, self._memory())
        layout, concept = layout_of(studio.model, settings, self.lessons.ahead), self.lessons.ahead[0]
        steps = steps_of(settings, concept)
        begun = self._begun(checkpoints)
        if begun < steps:
            # encoder and sampler are traced in a fraction of the step's time, so XLA has work early
            with stop.at_once("compiling"):
                compile_ahead(studio, settings, concept, layout)
                spec = self.spec(steps)
                for of_bucket in data_shapes(studio, settings, layout):
                    shapes = step_shapes(spec, studio.params, memory, of_bucket, self.protection.shapes())
                    train_steps.ahead(spec, settings.train.steps_per_call, *shapes)
        with stop.at_once("reading what the earlier lessons taught"), self.timings.part("protect"):
            self._recall_groups()
        memory, state = self._resumed(checkpoints, memory)
        if state is None:
            checkpoints.forget_from(self.number(first, 0))
            self.showing.forget_steps(first, concept)
        for index in range(first, first + len(self.lessons.ahead)):
            concept = self.concept(index)
            log.info("%s: concept %d of %d", concept.name, index + 1, first + len(self.lessons.ahead))
            keep_pictures(concept, self.directory)
            self.ledger.begin(studio.ids["model"], self.base_kernels, lesson_row(concept))
            with stop.at_once(f"encoding the pictures and making the prior images of {concept.name}"):
                data = concept_data(studio, settings, concept, layout, self.timings)
            memory = self._teach(index, memory, state, data, checkpoints, metrics, stop)
            state = None

    def _begun(self, checkpoints: Checkpoints) -> int:
        """The step of the first lesson's newest checkpoint that it may go on from; 0 if there is none."""
        if not self.lessons.resumes:
            return 0
        index, step = newest(checkpoints)
        return step if index == self.first else 0

    def _memory(self) -> Any:
        """Before the first lesson to come: of what the run's files hold."""
        studio = self.studio
        if not self.first:
            return self.method.empty(studio.params, self.rows, studio.model.text_encoder.hidden_size)
        return self.snapshot(self.first - 1).memory

    def sampled(self, memory: Any) -> Applied:
        """What to sample with after the lessons that memory holds."""
        return self.method.sampled(self.studio.params, memory)

    def _recall_groups(self) -> None:
        """Of what the base model was taught, and of the lessons that are over; runs of old versions kept no moments,
        which are made again."""
        self.protection.add_base(self.known_to_base)
        for index, row in enumerate(self.lessons.taught):
            found = self.snapshot(index)
            moment_dd = found.moment_dd
            taught = self.sampled(found.memory)
            if moment_dd is None:
                moment_dd = self.protection.moment(concept_of(row, self.method), taught.rows_rd)
            self._protect(index, row["name"], moment_dd, taught)

    def _protect(self, index: int, name: str, moment_dd: np.ndarray, taught: Applied) -> None:
        """The lesson of a concept is over: its keys and values count. Those of a method whose weights depend on the
        prompt are not the kernels' alone."""
        if taught.low_rank is None:
            after = lambda: kernels_of(self.sampled(self.snapshot(index).memory))  # noqa: E731
            self.protection.add(Group(name, moment_dd, after), kernels_of(taught))

    def _resumed(self, checkpoints: Checkpoints, memory: Any) -> tuple[Any, TrainState | None]:
        """Memory and state of the first lesson's newest checkpoint that can be read; no state if there is none."""
        numbers = range(self.number(self.first, 0), self.number(self.first + 1, 0))
        for number in reversed(checkpoints.among(numbers) if self.lessons.resumes else []):
            try:
                return self._restored(checkpoints, memory, number - numbers.start)
            except Exception as error:  # a reader of damaged parts raises whatever it stumbles over
                place = self.directory / "checkpoints" / str(number)
                told = f"{place} cannot be read, it is damaged ({' '.join(str(error).split())[:100]})"
                require(not self.lessons.extends, f"{told}, so the lesson cannot go on from it")
                log.warning("%s; the lesson goes on from an earlier step", told)
                checkpoints.forget_from(number)
        return memory, None

    def _restored(self, checkpoints: Checkpoints, memory: Any, step: int) -> tuple[Any, TrainState]:
        trainable, plan, _ = self.method.begin(self.key, self.studio.params, memory, self._task(self.first))
        like = {"memory": memory, "state": initial_state(self.method, trainable, plan)}
        # concepts that were added or taken away since then may want another number of token rows
        found = checkpoints.restore(self.number(self.first, step), replicate(self.studio.mesh, like), resized=True)
        log.info("resuming %s at step %d", self.concept(self.first).name, step)
        return found["memory"], found["state"]

    def _task(self, index: int) -> Any:
        return task_of(self.studio, self.settings, self.concept(index), self._calibration)

    @cached_property
    def _calibration(self) -> Hidden | None:
        return calibration_of(self.studio, self.settings)

    def _teach(
        self,
        index: int,
        memory: Any,
        state: TrainState | None,
        data: LessonData,
        checkpoints: Checkpoints,
        metrics: Metrics,
        stop: StopSignals,
    ) -> Any:
        concept, studio = self.concept(index), self.studio
        key = stream(self.key, "concept", index)
        with self.timings.part("select"):
            trainable, plan, statistics = self.method.begin(key, studio.params, memory, self._task(index))
        log.info("%s: %s", concept.name, self.method.told(statistics))
        # the steps donate their own; on the host until a sheet is drawn
        begun = jax.tree.map(np.asarray, trainable) if self.settings.report.sheets else None
        with self.timings.part("protect"):
            pull, holder = self.protection.pull(), self.protection.holder(self.sampled(memory))
        memory, plan, key, pull = replicate(studio.mesh, (memory, plan, key, pull))
        state = replicate(studio.mesh, state or initial_state(self.method, trainable, plan))

        def save(step: int, state: TrainState) -> None:
            checkpoints.save(self.number(index, step), {"memory": memory, "state": state})

        def look(step: int, state: TrainState) -> None:
            with self.timings.part("sample"):
                self.showing.step(index, concept, step, self.method.applied(studio.params, plan, state.trainable))

        steps = steps_of(self.settings, concept)

        def hold(step: int, state: TrainState) -> TrainState:
            return self._held(concept, step, state, holder) if holder else state

        fit = Fit(self.spec(steps), self.settings.train, steps, metrics, save, stop, look, hold)
        with self.timings.part("train"):
            state = fit.run(concept.name, state, Frozen(studio.params, plan, pull), data, key)
        with self.timings.part("protect"):
            moment_dd = self.protection.moment(concept, state.trainable.rows_rd)
            cut = self.protection.kept(memory, state.trainable, moment_dd)
        if cut is not state.trainable:  # the cut has moved protected keys and values by a little
            state = hold(steps, state._replace(trainable=replicate(studio.mesh, cut)))
        after = self.method.commit(memory, plan, state.trainable)
        if self.settings.report.sheets:  # before the lesson counts as taught, so that a kill leaves none without one
            with self.timings.part("sample"):
                before = self.method.applied(studio.params, plan, replicate(studio.mesh, begun))
                self._sheet(index, concept, before, self.sampled(after))
        with self.timings.part("save"):
            mask = self.method.mask(plan, state.trainable)
            self._record(index, after, mask, moment_dd, statistics, int(state.step))
        return after

    def _sheet(self, index: int, concept: Concept, before: Applied, after: Applied) -> None:
        try:
            self.showing.sheet(index, concept, before, after)
        except PictureError as error:  # the lesson is learned all the same
            log.warning("no sheet of %s: %s", concept.name, error)

    def _record(
        self,
        index: int,
        memory: Any,
        mask: Any,
        moment_dd: np.ndarray,
        statistics: dict[str, float],
        steps: int,
    ) -> None:
        concept = self.concept(index)
        # more steps have a file of their own: the ledger tells of the one before until its row is replaced
        more = f"_{steps}_steps" if self.lessons.extends else ""
        weights = f"weights/{index + 1:02d}_{concept.name}{more}.safetensors"
        taught = self.sampled(memory)
        with self.timings.part("protect"):
            moved = self.protection.certificate(kernels_of(taught))
        for change in moved:
            log.info("%s", told(change))
        save_snapshot(self.directory / weights, Snapshot(memory, mask, moment_dd))
        forget_pictures(self.directory, index)
        row = {**lesson_row(concept), "steps": steps, **kept(self.directory, weights), "mask": statistics}
        row["certificate"] = [change._asdict() for change in moved]
        before = self.ledger.read()["concepts"][index:]
        self.ledger.record(index, row)
        for old in before:
            if old["weights"] != weights:
                (self.directory / old["weights"]).unlink(missing_ok=True)
        self._protect(index, concept.name, moment_dd, taught)

    def _held(self, concept: Concept, step: int, state: TrainState, holder: Holder) -> TrainState:
        kernels, count = holder.held(state.trainable.kernels)
        if not count:
            return state
        log.info("%s: step %d: %d layers drawn back to protect.limit=%g", concept.name, step, count, holder.limit)
        trainable = state.trainable._replace(kernels=replicate(self.studio.mesh, kernels))
        return state._replace(trainable=trainable)

    def snapshot(self, index: int) -> Snapshot:
        """What the run kept after concept `index`."""
        files = snapshot_files(self.directory, self.ledger.read()["concepts"][: index + 1])
        return read_snapshot(self.method, files, self.kernels, self.rows)

    def _overview(self) -> None:
        learned = Learned.of(str(self.directory))
        try:
            concepts = taught_concepts(learned)
        except DataError as error:  # of a run of an old version, whose pictures have moved
            log.warning("the overview is as it was: %s", error)
            return

        self.showing.overview(concepts, lambda index: self.sampled(self.snapshot(index).memory))


def kernels_of(applied: Applied) -> Any:
    """The cross-attention K/V kernels."""
    return cross_attention_kernels(applied.unet)


def run(settings: RunSettings, lessons: Lessons | None = None) -> Path:
    """Run or resume a training run; returns its folder. lessons: the run's, where they are known already.

    Raises fit.Interrupted when asked to stop, and SettingsError if another process writes to the folder.
    """
    with holding(Path(settings.directory)), compute_ops(settings.compute_ops):
        TrainingRun(settings, lessons).run()
    return Path(settings.directory)
