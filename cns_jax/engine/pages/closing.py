"""What a run ends with: its evaluation and its report."""

from __future__ import annotations

import logging
from pathlib import Path

from cns_jax.core.files import FileError, read_json, require_keys
from cns_jax.engine.measure.evaluation import EvaluationRequest, evaluate
from cns_jax.engine.pages.report.page import write_report
from cns_jax.engine.runs.folder import earlier_settings
from cns_jax.engine.runs.ledger import Ledger
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.lessons import Lessons
from cns_jax.engine.timings import Timings

log = logging.getLogger(__name__)


def finished(settings: RunSettings, lessons: Lessons) -> str:
    """What to say of a run that has nothing left to do; empty if there is something. lessons: the run's."""
    folder, before = Path(settings.directory), earlier_settings(settings)
    drawn = (folder / "report.html").exists() and (not settings.report.pictures or _evaluated(folder))
    if lessons.ahead or before is None or before.report != settings.report or not drawn:
        return ""
    names = ", ".join(row["name"] for row in lessons.taught)
    more = "add a folder of pictures to " + settings.data_root if settings.drawn is None else "name more concepts"
    return "\n".join(
        [
            *(f"note: {note}" for note in lessons.notes),
            f"{folder} has learned {names}, and nothing is left to do. To teach more, {more} and run the same command.",
            f"Look at {folder / 'report.html'}",
        ]
    )


def close(settings: RunSettings) -> Path:
    """Draw and score as settings.report says, and write report.html; returns its path.

    Without the CLIP model that scores (no network, say) the report has no scores, and the log says why.
    """
    folder, report = settings.directory, settings.report
    if report.pictures and not _evaluated(Path(folder)):
        request = EvaluationRequest(folder, "ends", report.pictures, clip=report.clip, zero_shot=report.zero_shot)
        with Timings() as timings:
            try:
                with timings.part("evaluate"):
                    evaluate(request)
            except (ValueError, OSError) as error:  # the lessons are learned and saved; their report can do without
                log.warning("no scores in the report: %s", error)
        timings.save(Path(folder) / "timings.json")
    return write_report(folder)


def _evaluated(folder: Path) -> bool:
    """Whether all concepts have scores: made by the user, perhaps, with more pictures than ours."""
    file = folder / "evaluation" / "evaluation.json"
    try:
        value = read_json(file)
        require_keys(value, {"concepts": list, "scores": list, "summary": dict, "zero_shot": dict}, str(file))
    except (FileNotFoundError, FileError):  # a damaged one is made again
        return False
    scored = [concept.get("name") for concept in value["concepts"]]
    return scored == [row["name"] for row in Ledger(folder).read()["concepts"]]
