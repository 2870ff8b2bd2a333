"""A run's report.html: what was learned and kept, in pictures and plain words; one file that needs nothing else.

It is made from the run's folder alone, so it can be made again at any time. What the folder does not hold (an
evaluation, timings, snapshots, training pictures) is left out.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cns_jax import __version__
from cns_jax.core.files import replacing
from cns_jax.core.types import Concept
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.learned import Learned
from cns_jax.engine.pages import template
from cns_jax.engine.report.figures import KEYS, PLASTICITY, VALUES, Look, heat_map, key, layer_bars
from cns_jax.engine.report.neurons import count_neurons
from cns_jax.engine.report.pictures import Album, photos, sheet_file
from cns_jax.engine.report.scores import measures, preserved, verdict
from cns_jax.engine.report.training import duration, durations, losses, read_metrics, seconds_of
from cns_jax.engine.studio import MINIATURE
from cns_jax.evals.scores import Score
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
    """Everything that the template shows; None or empty where there is nothing."""
    folder, rows = learned.directory, learned.concepts
    names, tokens = [row["name"] for row in rows], learned.tokens
    timings = _json(folder / "timings.json") or {}
    metrics = read_metrics(folder / "metrics.jsonl")
    evaluation = _evaluation(folder / "evaluation" / "evaluation.json", names)
    scores = [Score.of(row) for row in evaluation["scores"]] if evaluation else []
    album = Album(folder / "evaluation", scores, len(names)) if scores else None
    settings = learned.settings
    return {
        "title": f"One model, {_number(len(rows))} new concept{'s' * (len(rows) > 1)}",
        "model": "Our miniature Stable Diffusion" if settings.model == MINIATURE else _model(learned),
        "facts": _facts(learned, metrics, timings),
        "unfinished": max(len(settings.concepts) - len(rows), 0),
        "concepts": [_concept(learned, i, album, scores) for i in range(len(rows))],
        "names": [_told(name) for name in names],
        "tokens": tokens,
        "keys": [key(Look.of(i)) for i in range(len(rows))],
        "plasticity": key(PLASTICITY),
        "measures": measures(evaluation["summary"]) if evaluation else [],
        "pictures": evaluation["num"] if evaluation else 0,
        "together": album.together() if album else [],
        "preserved": preserved(evaluation["zero_shot"]) if evaluation else [],
        "zero_shot": evaluation["zero_shot"] if evaluation else {},
        "plain": album.plain()[:6] if album else [],
        "overview": None if album else sheet_file(folder / "overview.png"),
        "neurons": _neurons(learned),
        "losses": losses(names, metrics, settings.train.steps),
        "timings": durations(timings),
        "settings": _flat(_json(folder / "config.json") or {}),
        "run": _home(str(folder)),
        "version": __version__,
    }


def _json(file: Path) -> Any:
    """None if the file is not there or was cut short."""
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _evaluation(file: Path, names: Sequence[str]) -> dict[str, Any] | None:
    found = _json(file)
    if found is None or not found.get("scores"):
        return None
    measured = [c["name"] for c in found["concepts"]]
    if measured != list(names):
        log.warning("%s is of %s; evaluate the run again to see it in the report", file, ", ".join(measured))
        return None
    return dict(found)


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _told(name: str) -> str:
    """A concept's name for people: "tiger_cat" -> "tiger cat"."""
    return name.replace("_", " ").strip() or name


def _model(learned: Learned) -> str:
    model = learned.settings.model
    return Path(model).name if os.path.isabs(model) else model


def _facts(learned: Learned, metrics: Sequence[Mapping[str, Any]], timings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, value) for the head of the page."""
    settings, train = learned.settings, learned.settings.train
    facts = [("model", _model(learned)), ("method", settings.method_name.upper())]
    if metrics:
        day = time.localtime(metrics[-1]["time"])
        facts.append(("date", f"{day.tm_mday} {time.strftime('%B %Y', day)}"))
    images = f"{train.batch} + {train.prior_batch}" if train.prior_batch else str(train.batch)
    facts.append(("each lesson", f"{train.steps} steps of {images} pictures"))
    facts.append(("picture size", f"{settings.resolution} px"))
    if isinstance(timings.get("device"), str):
        facts.append(("device", timings["device"]))
    total = sum(seconds for name, seconds in seconds_of(timings))
    if total:
        facts.append(("time", duration(total)))
    return facts


def _concept(learned: Learned, index: int, album: Album | None, scores: Sequence[Score]) -> dict[str, Any]:
    row = learned.concepts[index]
    concept = Concept(row["name"], row["token"], row["class_word"], row["kind"], (), ())
    sheet = album.sheet(index) if album else []
    mask = row.get("mask", {})
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
        "verdict": verdict(scores, index, len(learned.concepts)) if scores else None,
        "sheet": sheet,
        "last": index + 1 == len(learned.concepts),
        "face": next((r.pictures[-1] for r in sheet if r.pictures[-1]), None),
        "samples": None if sheet else sheet_file(learned.directory / "samples" / f"{index + 1:02d}_{concept.name}.png"),
        "neurons": f"{mask['neurons']:,.0f}".replace(",", "\u202f") if "neurons" in mask else "",
        "share": f"{100 * mask['mask_share']:.1f}\u00a0%" if "mask_share" in mask else "",
        "shared": f"{100 * mask['regularized_of_mask']:.0f}\u00a0%" if index and "regularized_of_mask" in mask else "",
    }


def _neurons(learned: Learned) -> dict[str, Any] | None:
    """The charts of the masks; None if snapshots are missing."""
    try:
        counted = count_neurons([learned.directory / row["weights"] for row in learned.concepts])
    except (WeightsMismatch, KeyError) as error:
        log.warning("the report says nothing of neurons: %s", error)
        return None
    several = len(learned.concepts) > 1
    pairs = counted.iou_cc[np.triu_indices(len(counted.iou_cc), 1)]
    title = "Overlap of the concepts' neurons, in percent"
    return {
        "share": f"{100 * float(np.mean(counted.neurons)) / counted.weights:.1f}\u00a0%",
        "overlap": heat_map(counted.iou_cc.tolist(), [_told(r["name"]) for r in learned.concepts], title=title)
        if several
        else None,
        "pairs": f"{100 * float(pairs.mean()):.0f}\u00a0%" if several else "",
        "layers": layer_bars(counted.layers, title="Share of every layer's weights that a concept may change"),
        "keys": key(KEYS),
        "values": key(VALUES),
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    out: list[tuple[str, str]] = []
    for name, one in value.items():
        if isinstance(one, Mapping):
            out += _flat(one, f"{prefix}{name}.")
        elif isinstance(one, list):
            for i, each in enumerate(one):
                part = {k: v for k, v in each.items() if v} if isinstance(each, Mapping) else {"": each}
                out.append((f"{prefix}{name}[{i}]", _home(", ".join(f"{k} {v}".strip() for k, v in part.items()))))
        else:
            out.append((prefix + name, _home("" if one is None else str(one))))
    return out


def _home(path: str) -> str:
    """A path that can be shown to others: without the name of the user's folder."""
    home = str(Path.home())
    return "~" + path[len(home) :] if path == home or path.startswith(home + os.sep) else path
