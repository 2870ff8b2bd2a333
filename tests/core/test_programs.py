"""Programs kept whole: run by a later process without a trace, and only where nothing that decides has changed."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cns_jax.core.mesh import make_mesh, replicate
from cns_jax.core.types import Batch
from cns_jax.core.xla import compiling, programs
from cns_jax.core.xla.compiling import Jitted
from cns_jax.core.xla.programs import ProgramFolder, program_key
from cns_jax.diffusion.schedule import Schedule

X = jax.ShapeDtypeStruct((3,), jnp.float32)
NAME = "cns_jax.engine.teach.step.train_steps"
EVERYWHERE, FIRST, SECOND = (
    NamedSharding(make_mesh(devices=devices), PartitionSpec()) for devices in (None, *zip(jax.devices()[:2]))
)
STATIC: dict[str, Any] = {"schedule": Schedule(), "sizes": (1, 2.5, None, "a", jnp.dtype("bfloat16"))}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProgramFolder]:
    """Where programs of this process are kept."""
    if not jax.config.jax_compilation_cache_dir:
        pytest.skip("JAX keeps nothing without a folder, as with -p no:cacheprovider; leave that out")
    kept = ProgramFolder(tmp_path)
    monkeypatch.setattr(compiling, "_programs", kept)
    monkeypatch.setattr(programs, "_BEGUN", np.inf)  # sources may be as young as they like
    programs._sources.cache_clear()
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield kept
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
    programs._sources.cache_clear()


@pytest.fixture
def salt(folder: ProgramFolder) -> float:
    """For programs that nobody has compiled before: of what JAX's cache has, nothing is kept."""
    return random.random()


class Repeated(Jitted[..., dict[str, jax.Array]]):
    """As a new process would have it: nothing traced or compiled yet."""

    def __init__(self) -> None:
        self.traced: list[int] = []

        def repeated(x: jax.Array, n: int, *, factor: float, salt: float = 0.0) -> dict[str, jax.Array]:
            self.traced.append(n)
            return {"a": factor * jnp.tile(x, n), "b": x + salt}

        repeated.__module__ = "cns_jax.core"  # as if its source were the package's
        super().__init__(repeated, static_argnames=("n", "salt"))


def called(salt: float, x: Any = (1, 2, 3), n: int = 2) -> tuple[list[float], list[int]]:
    """What a function gives that has begun its program for three numbers ahead, and what it traced."""
    repeated = Repeated()
    repeated.ahead(X, 2, factor=3.0, salt=salt)
    out = repeated(jnp.asarray(x, jnp.float32), n, factor=3.0, salt=salt)
    np.testing.assert_allclose(out["b"], np.asarray(x) + salt, rtol=1e-6)
    return out["a"].tolist(), repeated.traced


def wait_for(folder: ProgramFolder) -> Path:
    """The program that is being written."""
    until = time.monotonic() + 30
    finished = re.compile(r"\w+\.program").fullmatch
    while not (found := [f for f in folder.folder.iterdir() if finished(f.name)]) and time.monotonic() < until:
        time.sleep(0.01)
    return found[0]


def test_what_was_kept_is_run_without_a_trace(folder: ProgramFolder, salt: float) -> None:
    assert called(salt) == ([3, 6, 9] * 2, [2])
    wait_for(folder)
    assert called(salt) == ([3, 6, 9] * 2, [])


def test_what_jax_s_cache_had_is_not_kept(folder: ProgramFolder, salt: float) -> None:
    called(salt)
    file = wait_for(folder)
    file.unlink()
    for _ in range(2):
        assert called(salt) == ([3, 6, 9] * 2, [2])
    assert not file.exists()


def test_a_program_of_all_devices_takes_over_what_it_is_given(folder: ProgramFolder, salt: float) -> None:
    """As a training step does: one of many devices, whose state is a named tuple that is donated."""
    ends = []
    for _ in range(2):
        function = lambda batch, n: batch._replace(weight_b=batch.weight_b + n)  # noqa: E731
        function.__module__ = "cns_jax.core"
        grown = Jitted(function, static_argnames="n", donate_argnums=0)
        batch = replicate(EVERYWHERE.mesh, Batch(*map(jnp.arange, (1.0, 2, 3.0, 4, 5))))
        of_batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=EVERYWHERE), batch)
        grown.ahead(of_batch, salt)
        ends.append(grown(batch, salt))
        assert batch.noise_bhwc.is_deleted() and ends[-1].noise_bhwc.sharding == EVERYWHERE
        wait_for(folder)
    assert not grown.jitted._cache_size()
    jax.tree.map(np.testing.assert_array_equal, *ends)
    np.testing.assert_allclose(ends[0].weight_b, np.arange(3) + salt, rtol=1e-6)


@pytest.mark.parametrize(("x", "n"), [([1, 2, 3], 3), ([1, 2], 2)])
def test_other_arguments_are_traced(
    folder: ProgramFolder, salt: float, x: list[float], n: int, caplog: pytest.LogCaptureFixture
) -> None:
    called(salt)
    wait_for(folder)
    with caplog.at_level(logging.INFO, "cns_jax"):
        assert called(salt, x, n) == ([3.0 * v for v in x] * n, [n])
    assert ("does not fit and is compiled anew" in caplog.text) == (len(x) == 2)


def test_a_program_is_begun_once(folder: ProgramFolder, salt: float) -> None:
    repeated = Repeated()
    for _ in range(2):
        repeated.ahead(X, 2, factor=3.0, salt=salt)
        assert len(repeated._ahead) == 1
    wait_for(folder)  # or it would come to the folder of another test


def test_a_damaged_file_is_as_none(folder: ProgramFolder, salt: float, caplog: pytest.LogCaptureFixture) -> None:
    called(salt)
    file = wait_for(folder)
    file.write_bytes(file.read_bytes()[:1000])
    with caplog.at_level(logging.INFO, "cns_jax"):
        assert called(salt) == ([3, 6, 9] * 2, [2])
    assert "cannot be read and is compiled anew" in caplog.text
    assert not file.exists()


def test_the_longest_unused_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_KEPT_BYTES", 250)
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / f"{name}.program").write_bytes(b"." * 100)
        os.utime(tmp_path / f"{name}.program", (0, 1000 - age))
    (tmp_path / "jit_of_jax-cache").write_bytes(b"." * 1000)
    ProgramFolder(tmp_path)._forget_oldest()
    assert {file.name for file in tmp_path.iterdir()} == {"new.program", "middle.program", "jit_of_jax-cache"}


@dataclass(frozen=True)
class OfSomebodyElse:
    """Its methods could be anything."""

    rate: float = 1.0


@pytest.fixture
def key(folder: ProgramFolder) -> str:
    found = program_key(NAME, STATIC, (X,), {})
    assert found is not None and found == program_key(NAME, dict(STATIC), (X,), {})
    return found


@pytest.mark.parametrize(
    ("static", "arguments", "options"),
    [
        ({**STATIC, "schedule": Schedule(steps_offset=0)}, (X,), {}),
        ({**STATIC, "sizes": (1, 2.5, None, "b", jnp.dtype("bfloat16"))}, (X,), {}),
        ({**STATIC, "mesh": make_mesh()}, (X,), {}),
        (STATIC, (jax.ShapeDtypeStruct((4,), jnp.float32),), {}),
        (STATIC, (jax.ShapeDtypeStruct((3,), jnp.bfloat16),), {}),
        (STATIC, (jax.ShapeDtypeStruct((3,), jnp.float32, weak_type=True),), {}),
        (STATIC, (jax.ShapeDtypeStruct((3,), jnp.float32, sharding=EVERYWHERE),), {}),
        (STATIC, {"x": X}, {}),
        (STATIC, (X,), {"xla_backend_optimization_level": "1"}),
    ],
)  # fmt: skip
def test_what_decides_is_in_the_key(key: str, static: dict[str, Any], arguments: Any, options: dict[str, str]) -> None:
    assert program_key(NAME, static, arguments, options) not in (key, None)


def test_devices_are_told_apart(folder: ProgramFolder) -> None:
    first, second = (program_key(NAME, {}, jax.ShapeDtypeStruct((3,), int, sharding=s), {}) for s in (FIRST, SECOND))
    assert first != second


def test_settings_variables_and_sources_are_in_the_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    again = lambda: program_key(NAME, STATIC, (X,), {})  # noqa: E731
    with jax.default_matmul_precision("highest"):
        assert again() not in (key, None)
    with jax.debug_nans(True):
        assert again() not in (key, None)
    monkeypatch.setattr(programs, "_sources", lambda: "others")
    assert again() not in (key, None)
    monkeypatch.undo()
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " --xla_dump_to=")
    assert program_key(NAME, STATIC, (X,), {}) not in (key, None)


def test_nothing_is_kept_of_what_is_not_known(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert program_key(NAME, {"method": OfSomebodyElse()}, (X,), {}) is None
    assert program_key(NAME, {"of": (len,)}, (X,), {}) is None
    assert program_key("somebody.else", STATIC, (X,), {}) is None
    for name, value in (("_BEGUN", 0.0), ("_PACKAGE", Path("in.zip"))):  # all sources are younger, and there are none
        with monkeypatch.context() as changed:
            changed.setattr(programs, name, value)
            programs._sources.cache_clear()
            assert program_key(NAME, {}, (X,), {}) is None
