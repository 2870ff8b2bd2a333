"""A run's settings and circumstances, for people: what stands under the first screen, and the table of settings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cns_jax.engine.pages.report.commands import shown
from cns_jax.engine.pages.report.training import duration, seconds_of
from cns_jax.engine.runs.learned import Learned


def model_name(learned: Learned) -> str:
    """The model as its user named it; of a path only the last part."""
    model = learned.settings.model
    return Path(model).name if os.path.isabs(model) else model


def facts_of(
    learned: Learned, metrics: Sequence[Mapping[str, Any]], timings: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """(what, value) for the head of the page."""
    settings, train = learned.settings, learned.settings.train
    learns = f"{settings.method.learns}, and its token's row" if settings.method.learns else "the token's row"
    facts = [("model", model_name(learned)), ("method", settings.method.title), ("what learns", learns)]
    if settings.protects:
        facts.append(("protected", "prompts of earlier concepts, and general ones"))
    times = [row["time"] for row in metrics if isinstance(row.get("time"), int | float)]
    if times:
        day = time.localtime(times[-1])
        facts.append(("date", f"{day.tm_mday} {time.strftime('%B %Y', day)}"))
    images = f"{train.batch} + {train.prior_batch}" if train.prior_batch else str(train.batch)
    lessons = sorted({row.get("steps", train.steps) for row in learned.concepts})
    steps = f"{lessons[0]} to {lessons[-1]}" if len(lessons) > 1 else f"{lessons[0]}"
    facts.append(("each lesson", f"{steps} steps of {images} picture{'s' * (images != '1')}"))
    facts.append(("picture size", f"{settings.resolution} px"))
    if isinstance(timings.get("device"), str):
        facts.append(("device", timings["device"]))
    total = sum(seconds for name, seconds in seconds_of(timings))
    if total:
        facts.append(("time", duration(total)))
    return facts


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value)."""
    out: list[tuple[str, str]] = []
    for name, one in value.items():
        if isinstance(one, Mapping):
            out += flat(one, f"{prefix}{name}.")
        elif isinstance(one, list):
            for i, each in enumerate(one):
                part = {k: v for k, v in each.items() if v} if isinstance(each, Mapping) else {"": each}
                out.append((f"{prefix}{name}[{i}]", shown(", ".join(f"{k} {v}".strip() for k, v in part.items()))))
        else:
            out.append((prefix + name, shown("" if one is None else str(one))))
    return out
