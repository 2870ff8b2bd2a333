"""Times of a run's parts add up over its sessions."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cns_jax.engine import timings as module
from cns_jax.engine.timings import Timings


def kept(file: Path) -> dict[str, float]:
    return json.loads(file.read_text())


def test_parts_are_what_the_clock_says_and_sessions_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = tmp_path / "timings.json", [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    file.write_text(json.dumps({"train": 1000.0, "load": 5.0}))
    timings = Timings()
    for seconds in (3.0, 4.5):
        with timings.part("train"):
            now[0] += seconds
        now[0] += 50.0  # between the parts
    with pytest.raises(KeyError), timings.part("save"):  # one that failed took its time, too
        now[0] += 2.0
        raise KeyError
    timings.save(file)
    timings.save(file)  # nothing new: nothing is counted twice
    assert {name: kept(file)[name] for name in ("train", "load", "save")} == {"train": 1007.5, "load": 5.0, "save": 2.0}


def test_what_jax_compiles_in_the_block_alone_is_counted(tmp_path: Path) -> None:
    def compiled(file: Path, inside: bool) -> float:
        def slow(x: jax.Array) -> jax.Array:
            time.sleep(0.3)  # while it is traced, which is part of compiling
            return jnp.sin(x)

        timings = Timings()
        with timings:
            if inside:
                jax.jit(slow)(jnp.ones(7))
        if not inside:
            jax.jit(slow)(jnp.ones(7))
        timings.save(file)
        return kept(file).get("compile", 0.0)

    assert compiled(tmp_path / "inside.json", True) >= 0.3
    assert compiled(tmp_path / "outside.json", False) == 0.0
