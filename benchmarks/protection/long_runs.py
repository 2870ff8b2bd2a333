"""Many concepts in a row, taught by the protected method and looked at after every ten lessons."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper.experiments import Experiment, has_line, line
from benchmarks.protection.experiments import protected
from benchmarks.protection.variations import sequence, write_pictures
from benchmarks.runs import KEY, keep, read_lines
from cns_jax.data.images import open_image
from cns_jax.data.prompts import Prompt, evaluation_prompts
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.measure.evaluation import Drawer, EvaluationRequest, Scoring, Wanted, made_with
from cns_jax.engine.measure.judging import WorldJudge, load_judge
from cns_jax.engine.measure.zero_shot import zero_shot
from cns_jax.engine.runs.concepts import taught_concepts
from cns_jax.engine.runs.ledger import Ledger
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import ConceptSettings, RunSettings
from cns_jax.engine.teach.sequence import run as train
from cns_jax.evals.clip_scores import ClipScorer
from cns_jax.evals.scores import SINGLE, Score, summary

log = logging.getLogger(__name__)

LENGTHS = (20, 50)
_TEN = 10


@dataclass(frozen=True)
class LongRun:
    """The first `count` lessons of a run of `number` concepts in all, whose pictures and token rows do not change with
    `count`, so that all lessons use one program. experiment: where its settings come from."""

    number: int
    count: int
    experiment: Experiment
    seed: int = 0
    order: int = 0
    group: str = "long"

    @property
    def variant(self) -> str:
        """The method."""
        return self.experiment.variant

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.group}/{self.variant}_{self.number}_seed{self.seed}"

    def settings(self, root: Path) -> RunSettings:
        """The run's settings."""
        folder = root / self.name
        concepts = tuple(
            ConceptSettings(c.name, token=c.token, class_word=c.class_word, kind=c.kind)  # type: ignore[arg-type]
            for c in sequence(self.number)[: self.count]
        )
        return dataclasses.replace(
            self.experiment.settings(root), data_root=str(folder / "pictures"), run=str(folder / "run"),
            concepts=concepts, reserved_rows=self.number,
        )  # fmt: skip


def long_runs(length: int, every: int = _TEN) -> Iterator[LongRun]:
    """After each `every` lessons, and after all."""
    experiment = protected("long", 1, 0)
    return (LongRun(length, min(count, length), experiment) for count in range(every, length + every, every))


def perform_all(runs: Sequence[LongRun], root: Path, file: Path, pictures: int) -> None:
    """Teach and look, a line for each of `runs` in `file`; resumable at every lesson and picture.

    Raises SettingsError if the folder holds a run with other settings.
    """
    lines = read_lines(file)
    base = find_source(runs[0].settings(root).address).load().ids["model"]
    for one in runs:
        if has_line(one, root, pictures, lines, base):
            log.info("%s has its line after %d lessons", one.name, one.count)
            continue
        log.info("%s: %d of %d lessons", one.name, one.count, one.number)
        keep(file, perform(one, root, pictures))


def perform(one: LongRun, root: Path, pictures: int) -> dict[str, Any]:
    """Teach what the run does not know yet; its line."""
    settings = one.settings(root)
    folder = Path(settings.directory)
    for concept in sequence(one.number)[: one.count]:
        write_pictures(concept, Path(settings.data_root))
    if len(Ledger(folder).read()["concepts"]) <= one.count:  # else it is ahead
        train(settings)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    request = EvaluationRequest(str(folder), "ends", pictures, seed=one.seed, zero_shot=settings.report.zero_shot)
    return line({k: getattr(one, k) for k in KEY}, folder, looked_at(one, request))


def looked_at(one: LongRun, request: EvaluationRequest) -> dict[str, Any]:
    """Every concept right after its own lesson, and all after the last of `one`: what `evaluate` finds of the sets."""
    drawn = sequence(one.number)[: one.count]
    stages = Stages.open(request.run, drawn[-1].name)
    learned = stages.learned
    concepts, sample = taught_concepts(learned), learned.settings.sample
    clip = learned.settings.clip
    scorer = ClipScorer.open(clip)
    names = [concept.name for concept in concepts]
    likes = {c.name: scorer.images([np.asarray(open_image(path)) for path in c.image_paths]) for c in concepts}
    scoring = Scoring(scorer, WorldJudge(load_judge(), {c.name: c for c in drawn}), names, likes, None, {})
    drawer = Drawer(stages, request.num, request.seed, sample, Path(request.run) / "evaluation")
    prompts = [p for p in evaluation_prompts(concepts) if len(p.concepts) == 1]
    scores: list[Score] = []
    for wanted in _wanted(prompts, names):
        log.info("after %d concepts: %d prompts", wanted.stage, len(wanted.prompts))
        scores += scoring.scores(wanted, drawer.pictures(wanted), request)
    return {
        "concepts": [{"name": name} for name in names],
        "sample": dataclasses.asdict(sample),
        "clip": clip,
        "made_with": made_with(learned),
        "summary": summary(scores, len(names)),
        "zero_shot": zero_shot(stages, scorer, request.zero_shot, request.seed, sample),
        "scores": [score.as_dict() for score in scores],
    }


def _wanted(prompts: Sequence[Prompt], names: Sequence[str]) -> Iterator[Wanted]:
    for stage, name in enumerate(names[:-1], 1):
        yield Wanted(stage, SINGLE, tuple(p for p in prompts if p.concepts[0] == name))
    yield Wanted(len(names), SINGLE, tuple(prompts))
