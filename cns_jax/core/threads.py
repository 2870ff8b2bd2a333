"""Work on several cores at once: a call beside what the caller does, and a function of many items."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
X = TypeVar("X")
Y = TypeVar("Y")

log = logging.getLogger(__name__)


class Beside:
    """A call that only prepares what a later one would do by itself, such as a compilation: if it fails, the later
    one fails in its own place or does without."""

    def __init__(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        def call() -> None:
            try:
                function(*args, **kwargs)
            except Exception:
                log.debug("%s, beside other work", function.__name__, exc_info=True)

        self._thread = Thread(target=copy_context().run, args=(call,), name=function.__name__)
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[X], Y], items: Iterable[X]) -> list[Y]:
    """`function` of every item, in their order, a thread a core. For NumPy, and for programs of a few operations: as
    many long ones at once as there are cores, and XLA's CPU runtime returned wrong rows (benchmarks/NOTES.md)."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    found = dict[int, Y]()
    left = iter(range(len(items)))  # shared: a thread takes the next one when it is done with its last

    def work() -> None:
        for i in left:
            found[i] = function(items[i])

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(copy_context().run, work) for _ in range(min(cores(), len(items)))]:
            done.result()
    return [found[i] for i in range(len(items))]
