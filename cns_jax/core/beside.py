"""Work in a thread of its own, beside what the caller does meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Thread
from typing import ParamSpec

P = ParamSpec("P")

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

        self._thread = Thread(target=call, name=function.__name__)
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()
