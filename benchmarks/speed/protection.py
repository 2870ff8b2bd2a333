"""What protection costs: python -m benchmarks.speed.protection [--suite={mini,sd15-small,sd15}] [--rounds=15]

In one process, by turns: training steps of the method `protected` without protection, with its leading 128 directions,
and with all of them, on as many pictures as the suite's step of CNS has with its prior images. Beside that, what a
concept's moment takes: its prompts through the text encoder. On a CPU the seconds are those of its cores, added up,
which other work on the machine changes little. A line goes to benchmarks/results/protection/speed.jsonl and the table
of all lines to speed.md.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from absl import app, flags

from benchmarks.machine import device, provenance
from benchmarks.runs import keep, read_lines
from benchmarks.speed.ours import Ours
from benchmarks.speed.protection_cost import DIRECTIONS, in_turns, table
from benchmarks.speed.suites import SUITES, Suite, model_folder
from cns_jax.core.settings import build
from cns_jax.core.types import SUBJECT, Concept
from cns_jax.engine.draw.studio import Studio
from cns_jax.engine.runs.source import find_source
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.start import start
from cns_jax.engine.teach.protecting import Protection
from cns_jax.methods import METHODS
from configs import mini

log = logging.getLogger(__name__)

_SUITE = flags.DEFINE_enum("suite", "mini", list(SUITES), "which model and sizes")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "timed calls of each, in turns", lower_bound=1)
_CACHE = flags.DEFINE_string("cache", "runs/benchmarks", "where random Stable Diffusion 1.5 is written (4 GB)")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results/protection", "folder of the lines and the table")

KEY = ("suite", "device")


def main(_: list[str]) -> None:
    """Flags to calls to a line to the table."""
    start()
    suite = SUITES[_SUITE.value]
    folder = model_folder(suite, Path(_CACHE.value))
    line = {"suite": suite.name, "device": device(), "seconds": steps(suite, folder, _ROUNDS.value)}
    line |= {
        "pictures": suite.batch + suite.prior_batch,
        "moment": moment(folder, min(_ROUNDS.value, 5)),
        **provenance(),
    }
    file = Path(_RESULTS.value) / "speed.jsonl"
    keep(file, line, KEY)
    file.with_suffix(".md").write_text(table(read_lines(file)))
    print(file.with_suffix(".md").read_text())


def steps(suite: Suite, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds a step, of each of DIRECTIONS in turns; a row a round."""
    alone = dataclasses.replace(suite, batch=suite.batch + suite.prior_batch, prior_batch=0)
    ours, method = Ours(alone, folder), METHODS["protected"]()
    works = {name: ours.step(method, None if count is None else ours.pull(count)) for name, count in DIRECTIONS.items()}
    for name, work in works.items():
        log.info("compiling: %s", name)
        work.run()
    return in_turns({name: work.run for name, work in works.items()}, rounds, suite.steps)


def moment(folder: Path, rounds: int) -> list[float]:
    """Seconds for the moment of a concept's prompts, as a lesson takes it; compiled before."""
    values = mini.get_config().to_dict() | {"name": "moment", "model": str(folder)}
    settings = build(RunSettings, values)
    concept = Concept("cat", "<cat>", "cat", SUBJECT, (), ())
    studio = Studio.open(find_source(settings.address), (concept.token,), settings.reserved_rows, settings.resolution)
    protection = Protection(studio, settings)
    protection.moment(concept, studio.no_rows)
    return in_turns({"moment": lambda: protection.moment(concept, studio.no_rows)}, rounds)["moment"]


if __name__ == "__main__":
    app.run(main)
