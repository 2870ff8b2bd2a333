"""What protection gives: python -m benchmarks.protection [--groups=main,order,long] [--sets=1,2,3] [--seeds=0,1,2]

On the miniature: trains and evaluates what is missing under --root (resumable at every lesson; several processes may
share the work, each with its own --groups, --sets or --lengths) and appends a line a finished run to
benchmarks/results/protection/runs.jsonl. Group main: the method `protected` with the settings of configs/mini.py on the
sets, seeds, prompts and noise of CNS's lines in benchmarks/results/paper. order: sets begun with a scene or a style.
long: 20 and 50 concepts in a row, a line after every ten lessons. The page beside the lines is drawn from them and
from CNS's; --also=FILE, repeatable, adds the certificates of other lines to its figure.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags

from benchmarks.paper.experiments import perform_all
from benchmarks.protection import long_runs
from benchmarks.protection.experiments import GROUPS
from benchmarks.protection.page import write_all
from benchmarks.protection.pictures import draw_kept
from benchmarks.runs import read_lines
from cns_jax.core.settings import SettingsError
from cns_jax.engine.start import start
from cns_jax.engine.teach.fit import Interrupted

_LONG = "long"
_GROUPS = flags.DEFINE_list("groups", [*GROUPS, _LONG], f"which experiments: {', '.join(GROUPS)}, {_LONG}")
_SETS = flags.DEFINE_list("sets", ["1", "2", "3"], "which concept sets")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of the runs")
_LENGTHS = flags.DEFINE_list("lengths", [str(n) for n in long_runs.LENGTHS], "concepts of the long runs")
_PICTURES = flags.DEFINE_integer("pictures", 2, "pictures a prompt", lower_bound=1)
_ROOT = flags.DEFINE_string("root", "runs/protection", "folder of the runs")
_RESULTS = flags.DEFINE_string("results", "benchmarks/results/protection", "folder of the lines, tables and figures")
_CNS = flags.DEFINE_string("cns", "benchmarks/results/paper/runs.jsonl", "the lines of CNS")
_ALSO = flags.DEFINE_multi_string("also", [], "a file of more lines with certificates, repeatable")
_DRAW_ONLY = flags.DEFINE_bool("draw_only", False, "train nothing: tables and figures of the lines that are there")


def main(_: list[str]) -> None:
    """Flags to runs to lines."""
    start()
    file, root = Path(_RESULTS.value) / "runs.jsonl", Path(_ROOT.value)
    unknown = sorted({*_GROUPS.value} - {*GROUPS, _LONG})
    if unknown:
        sys.exit(f"error: no group is called {unknown[0]!r}; known: {', '.join((*GROUPS, _LONG))}")
    if not _DRAW_ONLY.value:
        try:
            _perform(root, file)
        except (Interrupted, SettingsError, OSError) as stopped:
            sys.exit(str(stopped))
        finally:  # the page shows what there is, after Ctrl-C too
            _page(file)
    elif not _page(file):
        sys.exit(f"error: {file} has no finished runs; run without --draw_only first")
    print(f"Look at {file.parent / 'README.md'}")


def _page(file: Path) -> bool:
    """Draw the page of all lines; whether there are any."""
    lines = read_lines(file)
    if lines:
        also = {Path(name).stem: read_lines(Path(name)) for name in _ALSO.value}
        draw_kept(Path(_ROOT.value), file.parent / "figures")
        write_all(lines, read_lines(Path(_CNS.value)), also, file.parent)
    return bool(lines)


def _perform(root: Path, file: Path) -> None:
    sets, seeds = [int(n) for n in _SETS.value], [int(n) for n in _SEEDS.value]
    experiments = [e for group in _GROUPS.value if group in GROUPS for e in GROUPS[group](sets, seeds)]
    failed = perform_all(experiments, root, file, _PICTURES.value) if experiments else []
    for length in _LENGTHS.value if _LONG in _GROUPS.value else []:
        long_runs.perform_all(list(long_runs.long_runs(int(length))), root, file, _PICTURES.value)
    if failed:
        sys.exit(f"error: {len(failed)} of {len(experiments)} runs failed, {failed[0]} the first; see above")


if __name__ == "__main__":
    app.run(main)
