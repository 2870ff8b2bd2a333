"""Tiny runs: their settings, the same as flags, and command lines in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONCEPTS = ("tiger_cat", "spotted_dog", "checked_mug")


def values(model: Path, folder: Path) -> dict[str, Any]:
    """A run of three drawn concepts into the tiny model that takes seconds."""
    sample = {"steps": 2, "batch": 4}
    return {
        "name": "tiny",
        "data_root": "miniature:1",
        "model": str(model),
        "run": str(folder),
        "resolution": 16,
        "concepts": [{"name": name} for name in CONCEPTS],
        "reserved_rows": 5,
        "method": {"lr_neurons": 1e-2, "lr_token": 1e-2, "calibration_prompts": 4},
        "train": {"steps": 12, "batch": 3, "prior_batch": 1, "steps_per_call": 2, "save_every": 4, "views": 2},
        "prior": {"images": 4, "directory": str(folder.parent / "cache"), "sample": sample},
        "sample": sample,
        "report": {"pictures": 0},  # the tiny model has no CLIP
    }


def flags(config: dict[str, Any], prefix: str = "--config") -> list[str]:
    """The same as flags of the command line."""
    out = []
    for key, value in config.items():
        if isinstance(value, dict):
            out += flags(value, f"{prefix}.{key}")
        elif key not in ("name", "concepts", "reserved_rows"):
            out.append(f"{prefix}.{key}={value}")
    return out


def config_file(config: dict[str, Any], file: Path) -> str:
    """The same as a configuration file, the whole of it; returns its flag."""
    lines = ("from ml_collections import ConfigDict", "", "def get_config():", f"    return ConfigDict({config!r})")
    file.write_text("\n".join(lines))
    return f"--config={file}"


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"cns_jax.{module}", *arguments]


def call(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(module, *arguments), capture_output=True, text=True, cwd=ROOT, env=dict(os.environ))
