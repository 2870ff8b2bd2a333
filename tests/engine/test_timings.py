"""Times of a run's parts add up over its sessions."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp

from cns_jax.engine.timings import Timings


def test_sessions_add_up(tmp_path: Path) -> None:
    file = tmp_path / "timings.json"
    file.write_text(json.dumps({"train": 1000.0, "load": 5.0}))
    timings = Timings()
    with timings.part("train"):
        jax.jit(lambda x: jnp.sin(x) * 3.25)(jnp.ones(7)).block_until_ready()
    timings.save(file)
    timings.save(file)  # nothing new: nothing is counted twice
    kept = json.loads(file.read_text())
    assert 1000 <= kept["train"] < 1100 and kept["load"] == 5.0 and kept["compile"] > 0
