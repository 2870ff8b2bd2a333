"""A run's report.html: what was learned and kept, in pictures and plain words; one file that needs nothing else.

It is made from the run's folder alone, so it can be made again at any time. What the folder does not hold (an
evaluation, timings, snapshots, training pictures) is left out, and a remark says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax import __version__
from cns_jax.core.files import json_in, replacing
from cns_jax.data.folder import DataError, discover
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.pages.html import template
from cns_jax.engine.pages.report.board import board
from cns_jax.engine.pages.report.charts import KEYS, REFERENCE, VALUES, Look, heat_map, key, layer_bars
from cns_jax.engine.pages.report.commands import next_steps, retrain
from cns_jax.engine.pages.report.evaluated import Evaluated, evaluated
from cns_jax.engine.pages.report.facts import facts_of, flat, model_name
from cns_jax.engine.pages.report.given import kept
from cns_jax.engine.pages.report.measures import measures, preserved
from cns_jax.engine.pages.report.moved import moved
from cns_jax.engine.pages.report.neurons import count_neurons
from cns_jax.engine.pages.report.pictures import Album, photos, sheet_file
from cns_jax.engine.pages.report.scores import verdict
from cns_jax.engine.pages.report.steps import course
from cns_jax.engine.pages.report.training import durations, losses, read_metrics
from cns_jax.engine.runs.concepts import drawn_set
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.settings import MINIATURE
from cns_jax.weights.tensors import WeightsMismatch

log = logging.getLogger(__name__)

_PHOTO = 160
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def write_report(run: str | Path) -> Path:
    """Write report.html to the run's folder and return it; made anew each time, from what the folder holds.

    Raises SettingsError if the folder is no run or has learned nothing yet.
    """
    learned = Learned.of(str(run))
    page = learned.directory / "report.html"
    html = template("report.html.j2").render(**contents(learned))
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return page


def contents(learned: Learned) -> dict[str, Any]:
    """Everything that the template shows; None or empty where there is nothing, and `absent` says what."""
    folder, rows = learned.directory, learned.concepts
    timings, metrics = json_in(folder / "timings.json"), read_metrics(folder / "metrics.jsonl")
    found = evaluated(learned)
    album = Album(folder / "evaluation", found.scores, len(rows)) if found.scores else None
    names = [_told(row["name"]) for row in rows]
    page = {
        "title": f"One model, {_number(len(rows))} new concept{'s' * (len(rows) > 1)}",
        "model": "Our miniature Stable Diffusion" if learned.settings.model == MINIATURE else model_name(learned),
        "facts": facts_of(learned, metrics, timings),
        "unfinished": _unfinished(learned),
        "board": board(found.scores, found.zero_shot, found.trusted) if found.scores else None,
        "trusted": found.trusted,
        "concepts": [_concept(learned, i, album, found) for i in range(len(rows))],
        "names": names,
        "keys": [key(Look.of(i)) for i in range(len(rows))],
        "reference": key(REFERENCE),
        "measures": measures(found.summary, found.scores, names) if found.scores else [],
        "moved": moved(rows),
        "pictures": found.num,
        "together": album.together() if album else [],
        "preserved": preserved(found.zero_shot),
        "zero_shot": found.zero_shot,
        "plain": album.plain()[:6] if album else [],
        "overview": None if album else sheet_file(folder / "overview.png"),
        "selects": learned.settings.method.selects,
        "weights": _weights(learned) if learned.settings.method.selects else None,
        "losses": losses([row["name"] for row in rows], metrics),
        "timings": durations(timings),
        "next_steps": next_steps(learned),
        "guessed": not kept(folder),
        "settings": flat(json_in(folder / "config.json")),
        "version": __version__,
    }
    return page | {"absent": _absent(page, found.remark)}


def _absent(page: Mapping[str, Any], evaluation: str) -> list[str]:
    """What a whole run's page has and this one has not, and why."""
    gone = [c["name"] for c in page["concepts"] if not c["photos"]]
    told = [f"Scores, and pictures beside each other: {evaluation}."] if evaluation else []
    if gone:
        told.append(f"The pictures that {', '.join(gone)} was taught with: they are not where they were.")
    if page["selects"] and not page["weights"]:
        told.append("Which weights were changed: the run's weight files are missing, or of different models.")
    missing = page["losses"]["missing"] if page["losses"] else []
    if not page["losses"]:
        told.append("The losses: metrics.jsonl has none of these concepts.")
    elif missing:
        told.append(f"The losses of {', '.join(map(_told, missing))}: metrics.jsonl has none.")
    return told if page["timings"] else [*told, "How long it took: there is no timings.json."]


def _unfinished(learned: Learned) -> int:
    """How many concepts the run's settings or its folder of pictures still have to teach."""
    settings = learned.settings
    wanted = [c.name for c in settings.concepts] or list(drawn_set(settings))
    if not wanted:
        try:
            wanted = [spec.name for spec in discover(Path(settings.data_root).expanduser())]
        except (DataError, OSError):  # nothing taught needs its folder any more
            return 0
    return len(set(wanted) - {row["name"] for row in learned.concepts})


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _told(name: str) -> str:
    """A concept's name for people: "tiger_cat" -> "tiger cat"."""
    return name.replace("_", " ").strip() or name


def _concept(learned: Learned, index: int, album: Album | None, found: Evaluated) -> dict[str, Any]:
    row = learned.concepts[index]
    concept = learned.taught[index]
    sheet = album.sheet(index) if album else []
    mask, folder = row.get("mask", {}), f"{index + 1:02d}_{concept.name}"
    lesson = course(learned.directory / "samples" / "steps" / folder, found.trusted)
    return {
        "number": index + 1,
        "name": _told(concept.name),
        "token": concept.token,
        "class_word": concept.class_word,
        "kind": concept.kind,
        "images": row.get("images"),
        "photos": photos(learned, concept.token, _PHOTO),
        "prompt": sample_prompts(concept)[0],
        "prompts": sample_prompts(concept)[1:3],
        "verdict": verdict(found.scores, index, len(learned.concepts), found.trusted) if found.scores else None,
        "sheet": sheet,
        "last": index + 1 == len(learned.concepts),
        "face": next((r.pictures[-1] for r in sheet if r.pictures[-1]), None),
        "samples": None if sheet else sheet_file(learned.directory / "samples" / f"{folder}.png"),
        "course": lesson,
        "course_command": retrain(learned, lesson.best) if lesson and not lesson.last else (),
        "weights": f"{mask['neurons']:,.0f}".replace(",", "\u202f") if "neurons" in mask else "",
        "every": mask.get("mask_share") == 1,
        "share": f"{100 * mask['mask_share']:.1f}\u00a0%" if "mask_share" in mask else "",
        "shared": f"{100 * mask['regularized_of_mask']:.0f}\u00a0%" if index and "regularized_of_mask" in mask else "",
    }


def _weights(learned: Learned) -> dict[str, Any] | None:
    """The charts of the masks; None if snapshots are missing."""
    try:
        counted = count_neurons([learned.directory / row["weights"] for row in learned.concepts])
    except (WeightsMismatch, KeyError) as error:
        log.warning("the report says nothing of the weights: %s", error)
        return None
    several = len(learned.concepts) > 1
    pairs = counted.iou_cc[np.triu_indices(len(counted.iou_cc), 1)]
    title = "Overlap of the weights that concepts may change, in percent"
    return {
        "share": f"{100 * float(np.mean(counted.neurons)) / counted.weights:.1f}\u00a0%",
        "overlap": heat_map(counted.iou_cc.tolist(), [_told(r["name"]) for r in learned.concepts], title=title)
        if several
        else None,
        "pairs": f"{100 * float(pairs.mean()):.0f}\u00a0%" if several else "",
        "chance": f"{100 * _chance(counted.neurons, counted.weights):.0f}\u00a0%" if several else "",
        "layers": layer_bars(counted.layers, title="Share of every layer's weights that a concept may change"),
        "keys": key(KEYS),
        "values": key(VALUES),
    }


def _chance(sizes: Sequence[int], weights: int) -> float:
    """Expected overlap of pairs of masks of these sizes if their weights were drawn at random."""
    shares = [size / weights for size in sizes]
    return float(np.mean([a * b / max(a + b - a * b, 1e-12) for a, b in combinations(shares, 2)]))
