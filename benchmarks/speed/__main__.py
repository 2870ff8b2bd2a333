"""cns_jax beside PyTorch: python -m benchmarks.speed --suite={mini,sd15-small,sd15} [--only=step,sample]
        [--processes=3] [--rounds=3] [--together]

Both sides read the same weights and take turns; a line a workload goes to benchmarks/results/speed.jsonl and the table
of all lines to speed.md. benchmarks/README.md says how to read them.
"""

from __future__ import annotations

import logging
from pathlib import Path

from absl import app, flags

from benchmarks.runs import keep
from benchmarks.speed.comparison import compare, start
from benchmarks.speed.suites import NAMES, SUITES, model_folder
from benchmarks.speed.table import KEY, rate, table
from benchmarks.speed.worker import SIDES

_SUITE = flags.DEFINE_enum("suite", "mini", list(SUITES), "which model and sizes")
_ONLY = flags.DEFINE_list("only", list(NAMES), "which workloads")
_PROCESSES = flags.DEFINE_integer("processes", 3, "pairs of processes, one after another", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "timed runs of each side in a pair, in turns (at least)", lower_bound=1)
_TOGETHER = flags.DEFINE_bool("together", False, "all start and compile at once: for many cores and much memory")
_CACHE = flags.DEFINE_string("cache", "runs/benchmarks", "where random Stable Diffusion 1.5 is written (4 GB)")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results", "folder of the lines and the table")


def main(_: list[str]) -> None:
    """Flags to workers to lines to the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    unknown = set(_ONLY.value) - set(NAMES)
    if unknown:
        raise SystemExit(f"error: unknown workloads {sorted(unknown)}; known: {', '.join(NAMES)}")
    suite = SUITES[_SUITE.value]
    folder = model_folder(suite, Path(_CACHE.value))
    file = Path(_RESULTS.value) / "speed.jsonl"
    ceiling = 0.0
    names = list(dict.fromkeys(["matmul", *_ONLY.value]))
    begun = {name: start(name, suite, folder) for name in names} if _TOGETHER.value else {}
    for name in names:
        line = compare(name, suite, folder, _PROCESSES.value, _ROUNDS.value, begun.pop(name, None))
        ceiling = ceiling or max(rate(line, side) for side in SIDES)
        keep(file, line | {"ceiling": ceiling}, KEY)
    file.with_suffix(".md").write_text(table(file))
    print(file.with_suffix(".md").read_text())


if __name__ == "__main__":
    app.run(main)
