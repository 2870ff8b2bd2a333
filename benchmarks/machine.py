"""What a result line says of where it was made."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def device() -> str:
    """The accelerator's name, or the processor's and how many of it."""
    from jax import devices  # in this process after the workers are done: it holds no arrays

    found = devices()[0]
    if found.platform != "cpu":
        return found.device_kind
    names = [row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")]
    return f"{len(names)} x {names[0].partition(': ')[2]}" if names else platform.processor()


def commit() -> str:
    """The checkout's commit, "+" if it has been changed since; empty outside of git."""
    try:
        short = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return short.stdout.strip()
