"""What a result line says of where it was made."""

from __future__ import annotations

import datetime
import platform
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

_READ = 2**24  # bytes


def provenance(*packages: str) -> dict[str, object]:
    """What made a line: versions of jax, jaxlib and `packages`, the checkout's commit, the day."""
    versions = {package: version(package) for package in ("jax", "jaxlib", *packages)}
    return {"versions": versions, "commit": commit(), "date": datetime.date.today().isoformat()}


def device() -> str:
    """JAX's accelerator, or the processor."""
    from jax import devices

    found = devices()[0]
    return processor() if found.platform == "cpu" else found.device_kind


def processor() -> str:
    """The processor's name, and how many of it."""
    names = [row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")]
    return f"{len(names)} x {names[0].partition(': ')[2]}" if names else platform.processor()


def commit() -> str:
    """The checkout's commit, "+" if it has been changed since; empty outside of git."""
    try:
        short = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return short.stdout.strip()


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
