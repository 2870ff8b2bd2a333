"""The table of speed.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs import read_lines
from cns_jax.core.markdown import table_lines

KEY = ("suite", "workload", "device")
"""What makes a line the same line."""

_HEAD = ("suite", "workload", "cns_jax", "PyTorch", "ratio", "images/s", "TFLOP/s", "of the ceiling", "compile",
         "peak memory", "device")  # fmt: skip


def table(file: Path) -> str:
    """Markdown."""
    return "\n".join(table_lines(_HEAD, map(_row, read_lines(file)))) + "\n"


def rate(line: Mapping[str, Any], side: str) -> float:
    """FLOP/s, by the median; the FLOP of a whole step or call as XLA counts them."""
    return line["flops"] / float(np.median(line["sides"][side]["seconds"]))


def _row(line: Mapping[str, Any]) -> list[str]:
    ours, theirs = line["sides"]["cns_jax"], line["sides"]["PyTorch"]
    median, flops = float(np.median(ours["seconds"])), rate(line, "cns_jax")
    return [
        line["suite"],
        line["workload"],
        _spread(ours["seconds"]),
        _spread(theirs["seconds"]),
        f"{line['ratio']:.2f}" + (f" ({line['note']})" if "note" in line else ""),
        f"{line['images'] / median:.3g}" if line["images"] else "",
        f"{flops / 1e12:.3g} / {rate(line, 'PyTorch') / 1e12:.3g}" if flops else "",
        f"{flops / line['ceiling']:.0%}" if flops and line["workload"] != "matmul" else "",
        f"{ours['compile']:.1f} / {theirs['compile']:.1f} s",
        f"{ours['peak_bytes'] / 1e9:.2f} / {theirs['peak_bytes'] / 1e9:.2f} GB",
        line["device"],
    ]


def _spread(seconds: list[float]) -> str:
    """Median and range, in milliseconds."""
    low, median, high = (1000 * float(q) for q in np.quantile(seconds, (0, 0.5, 1)))
    return f"{median:.4g} ms ({low:.4g} to {high:.4g})"
