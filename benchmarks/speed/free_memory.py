"""A machine's free memory, made ready for what is timed next."""

from __future__ import annotations

import tempfile
from pathlib import Path

_READ = 2**24  # bytes


class FreeMemory:
    """Sees to it that what is free of this machine's memory is really there.

    Some hosts take back what a virtual machine has free, within a second; a page costs twenty times as much then, by
    chance of who used it before. Pages of a file stay: this one's are zeros, and make room for anybody.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._size = 0

    def back(self) -> None:
        """Take what is free now; nothing where hosts do not take it."""
        if not Path("/sys/module/page_reporting").exists():
            return
        kilobytes = dict(row.split()[:2] for row in Path("/proc/meminfo").read_text().splitlines())
        free = (int(kilobytes["MemFree:"]) - int(kilobytes["MemTotal:"]) // 64) * 1024
        if free > 0:
            self._size += free
            self._file.truncate(self._size)
            for _ in range(0, free, _READ):
                self._file.read(_READ)
