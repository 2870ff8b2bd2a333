"""What a result line says of where it was made."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


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
