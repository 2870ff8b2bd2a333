"""Samples drawn within a lesson: a strip of pictures every so many steps, and which step did best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cns_jax.core.files import json_in
from cns_jax.engine.pages.report.pictures import sheet_file
from cns_jax.evals.clip_scores import clip_score

_MOST = 12  # strips in the page: the lesson's course, not a film
_SCORES = {"clip_i": "likeness (CLIP-I)", "clip_t": "fit to the prompt (CLIP-T)"}


@dataclass(frozen=True)
class Strip:
    """step: after so many steps; picture: a data URL; scores: for people, empty if there are none."""

    step: int
    picture: str
    scores: str
    best: bool


@dataclass(frozen=True)
class Course:
    """A lesson's strips in order. judged_by: the score that the best one is best by, empty where none is marked; best:
    its step, 0 for none; last: whether the best is the last."""

    prompts: tuple[str, ...]
    strips: tuple[Strip, ...]
    judged_by: str
    best: int
    last: bool


def course(folder: Path, trusted: bool = True) -> Course | None:
    """What `folder` holds: STEP.jpg, and steps.json with the prompts and perhaps scores; None if it holds no strip.

    The best step has the highest sum of the scores that every strip has: CLIP-I + CLIP-T as `best_of` weighs them, or
    the only one. trusted: whether the scorer knows such pictures; if not, no step is the best.
    """
    files = {int(f.stem): f for f in folder.glob("*.jpg") if f.stem.isdecimal()}
    if not files:
        return None
    about = json_in(folder / "steps.json")
    rows = about.get("steps")
    scores = {step: _scores(rows.get(str(step)) if isinstance(rows, Mapping) else None) for step in files}
    fields = [name for name in _SCORES if all(name in found for found in scores.values())] if len(files) > 1 else []
    totals = {step: sum(_weighed(name, scores[step][name]) for name in fields) for step in sorted(files)}
    best = max(totals, key=lambda step: totals[step]) if fields and trusted else 0
    pictures = {step: sheet_file(files[step]) for step in _chosen(sorted(files), best)}
    strips = tuple(
        Strip(step, picture, _told(scores[step]), step == best) for step, picture in pictures.items() if picture
    )
    prompts = about.get("prompts")
    words = tuple(p for p in prompts if isinstance(p, str)) if isinstance(prompts, list) else ()
    by = " + ".join(_SCORES[name] for name in fields) if best else ""
    return Course(words, strips, by, best, best == max(files)) if strips else None


def _scores(row: Any) -> dict[str, float]:
    """Those that are numbers."""
    found = row if isinstance(row, Mapping) else {}
    given = {name: found.get(name) for name in _SCORES}
    return {k: float(x) for k, x in given.items() if isinstance(x, int | float) and math.isfinite(x)}


def _weighed(name: str, value: float) -> float:
    return float(clip_score(value)) if name == "clip_t" else value  # type: ignore[arg-type]


def _told(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name.upper().replace('_', '-')} {100 * _weighed(name, x):.0f}" for name, x in scores.items())


def _chosen(steps: list[int], best: int) -> list[int]:
    """Evenly spread ones, with the first, the last and the best."""
    if len(steps) <= _MOST:
        return steps
    last = len(steps) - 1
    kept = {steps[round(i * last / (_MOST - 2))] for i in range(_MOST - 1)}
    return sorted(kept | ({best} if best else set()))
