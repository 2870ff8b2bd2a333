"""The recorded sweep behind configs/bench.py: python -m benchmarks.paper.sweep [--only="lr_neurons=1e-2"]

Around a base, one thing changes at a time; a line a trial goes to benchmarks/results/paper/sweep.jsonl, and the table
below it to sweep.md. A trial is a few concepts of one set, subjects with a scene or styles among them: what it learns
of each (plasticity), what is left of the first one at the end, and what it did to everything else. Everything but CNS
itself (full K/V, random neurons) is tried at the settings of CNS.
"""

from __future__ import annotations

from pathlib import Path

from absl import app, flags

from benchmarks.paper.experiments import Experiment, perform_all
from benchmarks.paper.trials import TRIALS, table
from benchmarks.runs import read_lines
from cns_jax.engine.start import start
from cns_jax.engine.teach.fit import Interrupted

_ONLY = flags.DEFINE_multi_string("only", [], "a trial by its name, repeatable (default: all)")
_SETS = flags.DEFINE_list("sets", ["1", "2"], "which concept sets")
_SEED = flags.DEFINE_integer("seed", 100, "another than those of the main experiments")
_COUNT = flags.DEFINE_integer("count", 4, "concepts a trial", lower_bound=2)
_FIRST = flags.DEFINE_integer("first", 3, "where in the set's order a trial begins")
_PICTURES = flags.DEFINE_integer("pictures", 4, "pictures a prompt", lower_bound=1)
_ROOT = flags.DEFINE_string("root", "runs/sweep", "folder of the runs")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results/paper", "folder of the lines and the table")


def main(_: list[str]) -> None:
    """Flags to trials to lines to the table."""
    start()
    folder = Path(_RESULTS.value)
    file = folder / "sweep.jsonl"
    unknown = sorted({*_ONLY.value} - {*TRIALS})
    if unknown:
        raise SystemExit(f"error: no trial is called {unknown[0]!r}; known: {'; '.join(TRIALS)}")
    trials = [
        Experiment("sweep", name, int(number), _SEED.value, _FIRST.value, count=_COUNT.value, **TRIALS[name])  # type: ignore[arg-type]
        for name in _ONLY.value or TRIALS
        for number in _SETS.value
    ]
    try:
        failed = perform_all(trials, Path(_ROOT.value), file, _PICTURES.value, "ends")
    except Interrupted as stopped:
        raise SystemExit(str(stopped)) from None
    finally:  # the table shows what there is, after Ctrl-C too
        if lines := read_lines(file):
            (folder / "sweep.md").write_text(table(lines))
            print(table(lines))
    if failed:
        raise SystemExit(f"error: {len(failed)} of {len(trials)} trials failed, {failed[0]} the first; see above")


if __name__ == "__main__":
    app.run(main)
