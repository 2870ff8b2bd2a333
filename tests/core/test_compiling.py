"""Options by backend, and the folder of compiled programs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cns_jax.core.xla import compiling
from cns_jax.core.xla.compiling import compiler_options, jit

PROGRAM = """
import jax, jax.numpy as jnp
from cns_jax.core.xla.compiling import keep_compiled
keep_compiled()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jnp.tanh(x @ x))(jnp.ones((8, 8))).block_until_ready()
print(jax.config.jax_compilation_cache_dir, bool(hits))
"""


@pytest.fixture
def fresh_options():
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def test_an_option_that_jaxlib_does_not_know_is_left_out(monkeypatch, fresh_options) -> None:
    monkeypatch.setattr(compiling, "OPTIONS", {"cpu": {"xla_no_such_option": "1", "xla_dump_to": ""}})
    assert compiler_options() == {"xla_dump_to": ""}


@pytest.mark.parametrize(("options", "programs"), [({}, 0), ({"xla_dump_to": "", "xla_dump_hlo_as_text": "false"}, 1)])
def test_asking_whether_options_are_known_costs_one_program_at_most(
    options: dict[str, str], programs: int, monkeypatch, fresh_options
) -> None:
    asked: list[dict[str, str]] = []

    def taken(some: dict[str, str]) -> bool:
        asked.append(some)
        return True

    monkeypatch.setattr(compiling, "OPTIONS", {"cpu": options})
    monkeypatch.setattr(compiling, "_are_taken", taken)
    assert compiler_options() == options
    assert len(asked) == programs


def test_options_reach_the_compiler(monkeypatch, fresh_options) -> None:
    """One that no compiler knows makes the compilation fail, so that it was given to it."""
    monkeypatch.setattr(compiling, "_are_taken", lambda options: True)
    monkeypatch.setattr(compiling, "OPTIONS", {jax.default_backend(): {"xla_no_such_option": "1"}})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        jit()(lambda x: x + 1)(jnp.ones(2))
    compiler_options.cache_clear()
    monkeypatch.setattr(compiling, "OPTIONS", {})
    jit()(lambda x: x + 1)(jnp.ones(2))


def test_keywords_and_what_was_compiled_are_those_of_jax() -> None:
    calls = []

    @jit(static_argnames="n")
    def repeated(x: jax.Array, n: int) -> jax.Array:
        """Repeats."""
        calls.append(n)
        return jnp.tile(x, n)

    assert repeated.__doc__ == "Repeats."
    assert repeated(jnp.ones(2), n=3).shape == repeated(jnp.ones(2), n=3).shape == (6,)
    repeated(jnp.ones(2), n=2)
    assert calls == [3, 2] and repeated.jitted._cache_size() == 2


def _run(**environment: str) -> tuple[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | environment, capture_output=True, text=True, check=True
    )
    folder, hits = result.stdout.split()
    return folder, hits


def test_a_second_process_reuses_what_the_first_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "cns_jax" / "compiled"
    assert _run(XDG_CACHE_HOME=str(tmp_path)) == (str(folder), "False")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert _run(XDG_CACHE_HOME=str(tmp_path)) == (str(folder), "True")


def test_the_user_s_own_choice_stands(tmp_path: Path) -> None:
    chosen = str(tmp_path / "mine")
    assert _run(JAX_COMPILATION_CACHE_DIR=chosen, XDG_CACHE_HOME=str(tmp_path))[0] == chosen


def test_programs_that_others_could_have_written_are_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "cns_jax" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert _run(XDG_CACHE_HOME=str(tmp_path))[0] == "None"


def test_whole_programs_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "_programs", None)
    before = jax.config.jax_compilation_cache_dir
    try:
        for value, kept in (("0", False), ("1", True)):
            jax.config.update("jax_compilation_cache_dir", None)
            monkeypatch.setenv(compiling.KEEP_VARIABLE, value)
            compiling.keep_compiled()
            assert (compiling._programs is not None) == kept
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cns_jax" / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
