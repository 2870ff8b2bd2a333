"""A run's report.html: what was learned and kept, in pictures and plain words; one file that needs nothing else.

It is made from the run's folder alone, so it can be made again at any time. What the folder does not hold (an
evaluation, timings, snapshots, training pictures) is left out.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cns_jax import __version__
from cns_jax.core.files import replacing
from cns_jax.core.types import Concept
from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.learned import Learned
from cns_jax.engine.pages import template
from cns_jax.engine.report.figures import KEYS, PLASTICITY, VALUES, Line, Look, heat_map, key, layer_bars, line_chart
from cns_jax.engine.report.neurons import count_neurons
from cns_jax.engine.report.pictures import Album, photos, sheet_file
from cns_jax.engine.report.scores import measures, preserved, verdict
from cns_jax.engine.studio import MINIATURE
from cns_jax.evals.scores import Score
from cns_jax.weights.tensors import WeightsMismatch

log = logging.getLogger(__name__)

_BINS = 40  # points a lesson in the curves
_PHOTO = 160
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PARTS = {
    "load": "loading the model",
    "encode": "encoding the pictures",
    "priors": "making prior images",
    "select": "choosing neurons",
    "train": "the lessons",
    "sample": "drawing sample sheets",
    "evaluate": "the evaluation",
}


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
    metrics = _metrics(folder / "metrics.jsonl")
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
        "losses": _losses(names, metrics, settings.train.steps),
        "timings": _timings(timings),
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


def _metrics(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the line that a kill cut short
            continue
    return rows


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
    total = sum(seconds for name, seconds in _parts(timings))
    if total:
        facts.append(("time", _duration(total)))
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


def _losses(names: Sequence[str], metrics: Sequence[Mapping[str, Any]], steps: int) -> dict[str, Any] | None:
    """The curves of all lessons, one after another."""
    looks = {"concept_loss": Look("#0072B2"), "prior_loss": Look("#E69F00"), "l_reg": Look("#555555")}
    lines: dict[str, list[Line]] = {name: [] for name in looks}
    for index, name in enumerate(names):
        rows = [row for row in metrics if row["part"] == name]
        for field, look in looks.items():
            points = [(index + row["step"] / steps, row[field]) for row in rows if field in row]
            points = [p for p in points if math.isfinite(p[1])]
            if points:
                lines[field].append(Line(_binned(points), look))
    if not lines["concept_loss"]:
        return None
    middles = [(i + 0.5, f"{i + 1}") for i in range(len(names))]

    def chart(fields: Sequence[str], title: str) -> Markup:
        some = [line for field in fields for line in lines[field]]
        return line_chart(some, middles, title=title, x_label="lesson", splits=range(len(names) + 1))

    pull = any(value > 0 for line in lines["l_reg"] for _, value in line.points)
    return {
        "chart": chart(("concept_loss", "prior_loss"), "Loss on the concepts' pictures and on prior images"),
        "pull": chart(("l_reg",), "The regularizer's penalty") if pull else None,
        "keys": {field: key(look) for field, look in looks.items()},
        "priors": bool(lines["prior_loss"]),
    }


def _binned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    groups = np.array_split(np.asarray(points), min(_BINS, len(points)))
    return [(float(x), float(y)) for x, y in (group.mean(axis=0) for group in groups)]


def _parts(timings: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(name, seconds), without what the others contain."""
    return [(k, float(v)) for k, v in timings.items() if k != "compile" and isinstance(v, int | float) and v > 0]


def _timings(timings: Mapping[str, Any]) -> dict[str, Any] | None:
    parts = _parts(timings)
    if not parts:
        return None
    longest = max(seconds for _, seconds in parts)
    order = {name: i for i, name in enumerate(_PARTS)}
    parts.sort(key=lambda part: order.get(part[0], len(order)))
    compiling = timings.get("compile", 0)
    return {
        "parts": [(_PARTS.get(k, k), _duration(s), f"{100 * s / longest:.1f}") for k, s in parts],
        "total": _duration(sum(s for _, s in parts)),
        "compile": _duration(compiling) if compiling else "",
    }


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
