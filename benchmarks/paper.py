"""The paper's tables and figures on the miniature: python -m benchmarks.paper [--seeds=0,1,2] [--sets=1,2,3]

Trains and evaluates what is missing under --root (resumable at every lesson), appends a line a finished run to
benchmarks/results/paper/runs.jsonl, and draws tables and figures from the lines: with --draw_only nothing is trained.
"""

from __future__ import annotations

import logging
from pathlib import Path

from absl import app, flags

from benchmarks.experiments import GROUPS, perform
from benchmarks.page import write_all
from benchmarks.runs import keep, read_lines
from cns_jax.engine.progress import console

log = logging.getLogger(__name__)

_GROUPS = flags.DEFINE_list("groups", list(GROUPS), "which experiments: " + ", ".join(GROUPS))
_SETS = flags.DEFINE_list("sets", ["1", "2", "3"], "which concept sets")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of the runs")
_VARIANTS = flags.DEFINE_list("variants", [], "only these methods and ablations (default: all)")
_PICTURES = flags.DEFINE_integer("pictures", 2, "pictures a prompt", lower_bound=1)
_ROOT = flags.DEFINE_string("root", "runs/paper", "folder of the runs")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results/paper", "folder of the lines, tables and figures")
_DRAW_ONLY = flags.DEFINE_bool("draw_only", False, "train nothing: tables and figures of the lines that are there")


def main(_: list[str]) -> None:
    """Flags to runs to lines to tables and figures."""
    console()
    file = Path(_RESULTS.value) / "runs.jsonl"
    if not _DRAW_ONLY.value:
        sets, seeds = [int(n) for n in _SETS.value], [int(n) for n in _SEEDS.value]
        experiments = [e for group in _GROUPS.value for e in GROUPS[group](sets, seeds)]
        experiments = [e for e in experiments if not _VARIANTS.value or e.variant in _VARIANTS.value]
        for index, experiment in enumerate(experiments, 1):
            log.info("run %d of %d: %s", index, len(experiments), experiment.name)
            keep(file, perform(experiment, Path(_ROOT.value), _PICTURES.value))
    lines = read_lines(file)
    if not lines:
        raise SystemExit(f"error: {file} has no finished runs; run without --draw_only first")
    write_all(lines, file.parent)
    print(f"Look at {file.parent / 'README.md'}")


if __name__ == "__main__":
    app.run(main)
