"""Calls timed by turns, and the table of what protection costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cns_jax.core.markdown import table_lines

DIRECTIONS = {"off": None, "128 directions": 128, "all directions": 0}
"""Label -> `protect.directions`; None: no protection."""


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int, per: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, divided by `per`; each round begins with another one."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            begun = clock()
            calls[name]()
            seconds[name].append((clock() - begun) / per)
    return seconds


def ratio(line: Mapping[str, Any], name: str) -> float:
    """Median over the rounds of the step's time with protection by that without."""
    return float(np.median(np.divide(line["seconds"][name], line["seconds"]["off"])))


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    head = ("suite", "pictures a step", "step without protection", *(f"with {name}" for name in list(DIRECTIONS)[1:]),
            "a concept's moment", "device")  # fmt: skip
    rows = [
        [
            line["suite"],
            str(line["pictures"]),
            f"{1000 * np.median(line['seconds']['off']):.0f} ms",
            *(f"{ratio(line, name):.3f} x" for name in list(DIRECTIONS)[1:]),
            f"{np.median(line['moment']):.2f} s",
            line["device"],
        ]
        for line in lines
    ]
    return "\n".join(table_lines(head, rows)) + "\n"
