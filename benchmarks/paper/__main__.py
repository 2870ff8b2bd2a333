"""The paper's tables and figures: python -m benchmarks.paper [--seeds=0,1,2] [--sets=1,2,3], or --runs=DIR --runs=DIR

On the miniature: trains and evaluates what is missing under --root (resumable at every lesson; several processes may
share the work, each with its own --variants or --sets), appends a line a finished run to
benchmarks/results/paper/runs.jsonl, and draws tables and figures from the lines: with --draw_only nothing is trained.
All groups are 90 runs of about 11 minutes on one core; --groups=main are the 45 of Fig. 5 and Table 2. The analysis of
neurons (Fig. 3, 7, 9.1 to 9.3), which needs no training, goes to the folder neurons beside the page.

With --runs: the same of any finished runs, of Stable Diffusion too, evaluated first where they are not; the neurons are
the first run's. A run's settings tell its method (CNS, without L_reg, ...); runs of the same concepts in the same order
are seeds of one set.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags

from benchmarks.paper.experiments import GROUPS, finished, mixed, perform_all
from benchmarks.paper.page import RENDERS, write_all
from benchmarks.paper.pictures import draw_first_concepts
from benchmarks.paper.reasons import judge_renders
from benchmarks.runs import keep, read_lines
from cns_jax.engine.measure.analysis import AnalysisRequest, analyze
from cns_jax.engine.start import start
from cns_jax.engine.teach.fit import Interrupted

_GROUPS = flags.DEFINE_list("groups", list(GROUPS), "which experiments: " + ", ".join(GROUPS))
_SETS = flags.DEFINE_list("sets", ["1", "2", "3"], "which concept sets")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of the runs")
_VARIANTS = flags.DEFINE_list("variants", [], "only these methods and ablations (default: all)")
_PICTURES = flags.DEFINE_integer("pictures", 2, "pictures a prompt", lower_bound=1)
_ROOT = flags.DEFINE_string("root", "runs/paper", "folder of the runs")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results/paper", "folder of the lines, tables and figures")
_RUNS = flags.DEFINE_multi_string("runs", [], "a finished run's folder, repeatable: draws its tables and figures")
_DRAW_ONLY = flags.DEFINE_bool("draw_only", False, "train nothing: tables and figures of the lines that are there")


def main(_: list[str]) -> None:
    """Flags to runs to lines to tables and figures."""
    start()
    file = Path(_RESULTS.value) / "runs.jsonl"
    if _RUNS.value:
        _draw_finished(file)
    elif not _DRAW_ONLY.value:
        neurons, renders = file.parent / "neurons", file.parent / RENDERS
        if not (neurons / "tables.md").exists():
            analyze(AnalysisRequest(out=str(neurons)))
        if not renders.exists():
            judge_renders(renders)
        sets, seeds = [int(n) for n in _SETS.value], [int(n) for n in _SEEDS.value]
        experiments = [e for group in _GROUPS.value for e in GROUPS[group](sets, seeds)]
        experiments = [e for e in experiments if not _VARIANTS.value or e.variant in _VARIANTS.value]
        try:
            failed = perform_all(experiments, Path(_ROOT.value), file, _PICTURES.value)
        except Interrupted as stopped:
            sys.exit(str(stopped))
        finally:  # the page shows what there is, after Ctrl-C too
            _page(file)
        if failed:
            sys.exit(f"error: {len(failed)} of {len(experiments)} runs failed, {failed[0]} the first; see above")
    elif not _page(file):
        sys.exit(f"error: {file} has no finished runs; run without --draw_only first")
    print(f"Look at {file.parent / 'README.md'}")


def _draw_finished(file: Path) -> None:
    """The tables and figures of --runs, in a folder of their own."""
    if not _RESULTS.present:
        sys.exit("error: give --results=DIR too, a folder for the tables of these runs")
    try:
        lines = list(finished(_RUNS.value, _PICTURES.value))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    models = {line["base"]: line["model"] for line in lines}
    if len(models) > 1:
        told = ", ".join(models.values())
        sys.exit(f"error: these runs are of several models ({told}); their scores cannot be compared")
    if other := mixed(lines):
        print(f"Mind: these runs differ in {other}; the tables compare them all the same", file=sys.stderr)
    for line in lines:
        keep(file, line)
    analyze(AnalysisRequest(run=_RUNS.value[0], out=str(file.parent / "neurons")))
    write_all(lines, file.parent)


def _page(file: Path) -> bool:
    """Draw the page of all lines; whether there are any. Exits if they cannot be compared."""
    lines = read_lines(file)
    if lines and (other := mixed(lines)):
        sys.exit(f"error: the runs in {file} differ in {other}; take the old lines out, or give another --results")
    if lines:
        draw_first_concepts(Path(_ROOT.value), file.parent / "figures")
        write_all(lines, file.parent)
    return bool(lines)


if __name__ == "__main__":
    app.run(main)
