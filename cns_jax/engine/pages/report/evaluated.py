"""A run's evaluation as its report reads it, or why it cannot be shown."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cns_jax.core.files import read_json
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.settings import MINIATURE
from cns_jax.evals.scores import Score

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """scores: a picture a row, empty if there is no evaluation of exactly the run's concepts; remark: then why, else
    empty; num: pictures a prompt; trusted: see `trusted_scores`."""

    scores: Sequence[Score] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    zero_shot: Mapping[str, Any] = field(default_factory=dict)
    num: int = 0
    trusted: bool = True
    remark: str = ""


def evaluated(learned: Learned) -> Evaluated:
    """From the run's folder; whatever is wrong with it is a remark, not an error."""
    file = learned.directory / "evaluation" / "evaluation.json"
    nothing = Evaluated(trusted=trusted_scores(learned, ""))
    names = [row["name"] for row in learned.concepts]
    try:
        found = read_json(file)
        measured = [concept["name"] for concept in found["concepts"]]
        if measured != names:
            remark = f"the evaluation is of {', '.join(measured)}; evaluate the run again to see it in the report"
            log.warning("%s: %s", file, remark)
            return dataclasses.replace(nothing, remark=remark)
        scores = [Score.of(row) for row in found["scores"]]
        if not scores:
            return dataclasses.replace(nothing, remark="the evaluation has drawn nothing")
        trusted = trusted_scores(learned, found.get("clip", ""))
        return Evaluated(scores, found["summary"], found["zero_shot"], found["num"], trusted)
    except FileNotFoundError:
        return dataclasses.replace(nothing, remark="the run has not been evaluated")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s: %s); evaluate the run again", file, type(error).__name__, error)
        return dataclasses.replace(nothing, remark="the evaluation cannot be read; evaluate the run again")


def trusted_scores(learned: Learned, clip: str) -> bool:
    """Whether scores can tell what was learned: not of the user's own pictures where the miniature draws or scores
    them, which was taught on its drawn world alone and calls noise of the right colours close."""
    return learned.settings.drawn is not None or MINIATURE not in (learned.settings.model, clip)
