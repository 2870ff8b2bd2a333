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
        "method": {"name": "cns", "lr_neurons": 1e-2, "lr_token": 1e-2, "calibration_prompts": 4},
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
        elif f"{prefix}.{key}" not in ("--config.name", "--config.concepts", "--config.reserved_rows"):
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


def kept(file: Path, kernels: Any, rows: int = 0) -> Any:
    """What a run of CNS kept after a concept. kernels: the base model's."""
    from cns_jax.engine.runs.learned import read_snapshot
    from cns_jax.methods.cns import CNS

    return read_snapshot(CNS(), [file], kernels, rows)


def finished(model: Path, folder: Path) -> Path:
    """A finished run without training: what it learned is random, of the size that training makes."""
    import json

    import jax
    import numpy as np

    from cns_jax.core.tree import fingerprint, map_named
    from cns_jax.methods.cns import Memory
    from cns_jax.neurons.score import cross_attention_kernels
    from cns_jax.weights.folder import read_folder
    from cns_jax.weights.snapshot import Snapshot, save_snapshot

    config = values(model, folder)
    pipeline = read_folder(model).load()
    kernels = cross_attention_kernels(pipeline.params["unet"])
    base, rng = fingerprint(kernels), np.random.default_rng(0)
    rows = rng.normal(size=(config["reserved_rows"], pipeline.model.text_encoder.hidden_size)).astype(np.float32)
    concepts = []
    for i, name in enumerate(CONCEPTS):
        mask = jax.tree.map(lambda w: rng.random(w.shape) < 0.3, kernels)
        change = jax.tree.map(lambda w, m: (0.1 * rng.normal(size=w.shape) * m).astype(np.float32), kernels, mask)
        kernels = jax.tree.map(np.add, kernels, change)
        file = f"weights/{i + 1:02d}_{name}.safetensors"
        memory = Memory(mask, map_named(lambda _, w: w, kernels), rows)
        save_snapshot(folder / file, Snapshot(memory, mask))
        row = {"name": name, "token": f"<{name}>", "class_word": name.split("_")[1], "kind": "subject", "weights": file}
        concepts.append({**row, "images": 5, "mask": {"neurons": 1.0}})
    (folder / "config.json").write_text(json.dumps(config))
    ledger = {"base": pipeline.ids["model"], "base_kernels": base, "concepts": concepts}
    (folder / "ledger.json").write_text(json.dumps(ledger))
    return folder
