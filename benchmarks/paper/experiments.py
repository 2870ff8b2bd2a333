"""The runs behind the paper's tables: methods and ablations on the miniature's sets, several seeds, one line each."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from benchmarks.paper.drift import drift, likeness
from benchmarks.paper.lines import NUMBERS
from benchmarks.runs import KEY, keep, read_lines
from cns_jax.core.settings import build, require
from cns_jax.engine.draw.stages import Stages
from cns_jax.engine.measure.evaluation import EvaluationRequest, evaluate
from cns_jax.engine.measure.judging import judge_id
from cns_jax.engine.runs.folder import earlier_settings
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.sequence import run as train
from cns_jax.evals.forgetting import json_number
from cns_jax.evals.scores import Score, attributes_shown
from cns_jax.miniature.concepts import concepts as drawn_concepts
from configs import bench

log = logging.getLogger(__name__)

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "cns": {},
    "no_lreg": {"lambda1": 0.0, "lambda2": 0.0},
    "random": {"selection": "random"},
    "full_kv": {"selection": "all", "lambda1": 0.0, "lambda2": 0.0},
    "token": {"lr_neurons": 0.0},
}
"""What differs from configs/bench.py. random: as many weights a row, chosen by chance; full_kv: all K/V weights, no
L_reg (Fig. 5 and Table 2 of the paper); token: the token's row alone, so what neurons add can be told."""


@dataclass(frozen=True)
class Experiment:
    """One sequence of lessons. order: a rotation of the set's concepts by that many places; count: how many of them;
    method, train, protect: what differs from configs/bench.py."""

    group: str
    variant: str
    number: int
    seed: int
    order: int = 0
    method: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    count: int = 7
    protect: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its folder's name."""
        first = f"_first{self.count}" if self.count < 7 else ""
        return f"{self.group}/{self.variant}_set{self.number}_seed{self.seed}_order{self.order}{first}"

    def settings(self, root: Path) -> RunSettings:
        """The run's settings."""
        values = bench.get_config().to_dict()
        names = [c.name for c in drawn_concepts(self.number)]
        names = (names[self.order :] + names[: self.order])[: self.count]
        values |= {"name": self.variant, "data_root": f"miniature:{self.number}", "seed": self.seed}
        values |= {"concepts": [{"name": name} for name in names], "run": str(root / self.name)}
        values["prior"]["directory"] = str(root / "cache")
        values["method"] |= self.method
        values["train"] |= self.train
        values["protect"] = values.get("protect", {}) | dict(self.protect)
        return build(RunSettings, values)


def main_experiments(sets: Sequence[int], seeds: Sequence[int]) -> Iterator[Experiment]:
    """Fig. 5 and Table 2: the variants on every set and seed, a whole round of them before the next seed."""
    for seed in seeds:
        for number in sets:
            for variant, method in VARIANTS.items():
                yield Experiment("main", variant, number, seed, method=method)


def order_experiments(sets: Sequence[int], seeds: Sequence[int]) -> Iterator[Experiment]:
    """The same concepts in other orders."""
    for seed in seeds:
        for number in sets:
            for order in (2, 5):
                yield Experiment("order", "cns", number, seed, order=order)


def ratio_experiments(sets: Sequence[int], seeds: Sequence[int]) -> Iterator[Experiment]:
    """The threshold sweep: 10, 20 and 50 % beside the 30 % of the main experiments."""
    for seed in seeds:
        for number in sets:
            for ratio in (0.1, 0.2, 0.5):
                yield Experiment("ratio", f"ratio{round(100 * ratio)}", number, seed, method={"ratio": ratio})


GROUPS = {"main": main_experiments, "order": order_experiments, "ratio": ratio_experiments}


def perform_all(
    experiments: Sequence[Experiment], root: Path, file: Path, pictures: int, stages: str = "all"
) -> list[str]:
    """One after another, a line each in `file`; those that have theirs are not made again, wherever their folders are.
    Returns the names of those that failed, which the log tells of."""
    lines, failed = read_lines(file), []
    base = find_source(experiments[0].settings(root).address).load().ids["model"] if lines and experiments else ""
    for index, experiment in enumerate(experiments, 1):
        if has_line(experiment, root, pictures, lines, base):
            log.info("run %d of %d: %s has its line", index, len(experiments), experiment.name)
            continue
        log.info("run %d of %d: %s", index, len(experiments), experiment.name)
        try:
            keep(file, perform(experiment, root, pictures, stages))
        except (ValueError, OSError) as error:  # every error that the user can mend is one
            log.error("%s failed: %s", experiment.name, error)
            failed.append(experiment.name)
    return failed


def perform(experiment: Experiment, root: Path, pictures: int, stages: str = "all") -> dict[str, Any]:
    """Train and evaluate, or read what is there already if it was made so; returns its line for the results file.

    Raises SettingsError if its folder holds a run with other settings: configs/bench.py has changed since.
    """
    settings = experiment.settings(root)
    folder = Path(settings.directory)
    before = earlier_settings(settings)  # which lets a run go on with more concepts or steps; a measurement must not
    parts = ("concepts", "train", "report")
    mixed = [part for part in parts if before is not None and getattr(before, part) != getattr(settings, part)]
    require(not mixed, f"{folder} holds a run with another {', '.join(mixed)}; take another folder")
    if not (folder / "overlaps.json").exists():  # the last thing that training writes
        train(settings)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # 100 MB a run, of no use once it is done
    request = EvaluationRequest(
        str(folder), stages, pictures, seed=experiment.seed, zero_shot=settings.report.zero_shot
    )
    return line({k: getattr(experiment, k) for k in KEY}, folder, _evaluated(request))


class Planned(Protocol):
    """What has the fields of KEY, and settings."""

    def settings(self, root: Path) -> RunSettings:
        """The run's settings."""


def has_line(experiment: Planned, root: Path, pictures: int, lines: Sequence[Mapping[str, Any]], base: str) -> bool:
    """Whether one of `lines` is of this experiment as it would be made now, so that its run's folder is not needed.

    base: the fingerprint of the model.
    """
    settings = experiment.settings(root)
    names = ("method", "train", "sample", *(["protect"] if settings.protects else []))
    parts = {part: getattr(settings, part) for part in names}
    facts = {k: getattr(experiment, k) for k in KEY} | {"base": base, "judge": judge_id()}

    def of_it(line: Mapping[str, Any]) -> bool:
        """A setting that did not exist when the line was made had its default's effect."""
        same = all(asdict(type(part)()) | line.get(name, {}) == asdict(part) for name, part in parts.items())
        return line["cells"][0][4] == pictures and same and all(line[k] == v for k, v in facts.items())

    return any(of_it(line) for line in lines)


def finished(folders: Sequence[str], pictures: int) -> Iterator[dict[str, Any]]:
    """A line for each of any finished runs, evaluated first where they are not: its settings tell its variant, and runs
    of the same concepts in the same order are one set.

    Raises SettingsError for a folder that is no run, or for a second run of the same variant, set and seed.
    """
    sets: dict[tuple[str, ...], int] = {}
    seen: dict[tuple[Any, ...], Path] = {}
    for folder in map(Path, folders):
        settings = Learned.of(str(folder)).settings
        found = _evaluated(EvaluationRequest(str(folder), num=pictures, seed=settings.seed))
        number = sets.setdefault(tuple(concept["name"] for concept in found["concepts"]), len(sets) + 1)
        values = ("main", variant_of(settings), number, settings.seed, 0, len(found["concepts"]))
        other = seen.setdefault(values, folder)
        require(
            other == folder,
            f"{folder} and {other} are both {values[1]} of the same concepts at seed {settings.seed}: give one of them",
        )
        yield line(dict(zip(KEY, values, strict=True)), folder, found)


def variant_of(settings: RunSettings) -> str:
    """The one of VARIANTS that CNS's settings make, or another method's name."""
    if settings.method.name != "cns":
        return settings.method.name
    differing = [
        name for name, values in VARIANTS.items() if all(getattr(settings.method, k) == v for k, v in values.items())
    ]
    return max(differing, key=lambda name: len(VARIANTS[name]))  # full_kv has no L_reg either


def mixed(lines: Sequence[Mapping[str, Any]]) -> str:
    """What differs between lines that a table would compare, "" if nothing does: the model, the judge, or a setting
    other than the one that makes the variant."""
    facts = [_facts(line) for line in lines]
    for name in dict.fromkeys(name for fact in facts for name in fact):
        if len({json.dumps(fact[name], sort_keys=True) for fact in facts if name in fact}) > 1:
            return name
    return ""


def _facts(line: Mapping[str, Any]) -> dict[str, Any]:
    varied = ("ratio",) if line["group"] == "ratio" else VARIANTS.get(line["variant"], ())
    facts = {name: line[name] for name in ("base", "judge", "clip") if name in line}
    facts["pictures a prompt"] = line["cells"][0][4]
    for part in ("train", "sample", "method"):
        facts |= {f"{part}.{k}": v for k, v in line[part].items() if part != "method" or k not in varied}
    return facts


def _evaluated(request: EvaluationRequest) -> dict[str, Any]:
    """The evaluation of a run's folder, read if it was made so already; pictures that are there are not drawn again."""
    file = Path(request.run) / "evaluation" / "evaluation.json"
    if not file.exists() or not _made_so(json.loads(file.read_text()), request):
        evaluate(request)
    return json.loads(file.read_text())


def _made_so(found: Mapping[str, Any], request: EvaluationRequest) -> bool:
    """Whether an evaluation is of this request and by the judge of today."""
    asked = (request.stages, request.num, request.seed, judge_id())
    return (found["stages"], found["num"], found["noise"], found["made_with"]["judge"]) == asked


def line(about: Mapping[str, Any], folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """What tables and figures need of one run, without its pictures. about: the fields of KEY. cells: a row a prompt
    and stage: stage, kind, prompt, indices of its concepts, number of pictures, mean of each of NUMBERS over them.
    shown: of each concept, the share of pictures with each of its attributes, right after its lesson and at the end.
    Of a run that knows more concepts, it tells of those found."""
    names = [concept["name"] for concept in found["concepts"]]
    rows = json.loads((folder / "ledger.json").read_text())["concepts"][: len(names)]
    config = json.loads((folder / "config.json").read_text())
    groups: dict[tuple[Any, ...], list[Score]] = {}
    every = [Score.of(row) for row in found["scores"]]
    for score in every:
        groups.setdefault((score.stage, score.kind, score.prompt, score.concepts), []).append(score)
    cells = [
        [*key, len(scores), *(json_number(round(fmean(getattr(s, name) for s in scores), 5)) for name in NUMBERS)]
        for key, scores in groups.items()
    ]
    stages = Stages.open(str(folder), names[-1])
    return {
        **about,
        "model": config["model"],
        "concepts": names,
        "method": config["method"],
        "protect": config["protect"],
        "train": config["train"],
        "sample": found["sample"],
        "clip": found["clip"],
        "summary": found["summary"],
        "shown": {
            name: attributes_shown([s for s in every if s.concepts == (index,)], len(names))
            for index, name in enumerate(names)
        },
        "zero_shot": found["zero_shot"],
        "masks": [row["mask"] for row in rows],
        "certificate": [row["certificate"] for row in rows],
        "overlaps": json.loads((folder / "overlaps.json").read_text()),
        "fusion": fusion(stages),
        "drift": drift(stages),
        "likeness": likeness(stages),
        "timings": json.loads((folder / "timings.json").read_text()),
        **found["made_with"],
        "cells": cells,
    }


def fusion(stages: Stages) -> dict[str, float]:
    """Table 1: seconds, and megabytes of arrays made, to get one model of all concepts from what the method keeps."""
    params = stages.studio.params
    memory = jax.tree.map(jnp.asarray, stages.learned.snapshot(params).memory)
    kept = {id(leaf) for leaf in jax.tree.leaves((params, memory))}
    begun = time.perf_counter()
    merged = jax.block_until_ready(stages.learned.settings.method.sampled(params, memory))
    seconds = time.perf_counter() - begun
    made = sum(leaf.nbytes for leaf in jax.tree.leaves(merged) if id(leaf) not in kept)
    return {"seconds": seconds, "megabytes": made / 1e6}
