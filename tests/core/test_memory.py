from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref

import pytest

from cns_jax.core.memory import collect_seldom

_TRIES = """
import resource
{start}
import jax, jax.numpy as jnp

@jax.jit
def program(x):  # x @ x.T is a temporary of 64 MB, more than glibc keeps by itself
    return ((x @ x.T) @ x).sum()

x = jnp.ones((4096, 32))
program(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
program(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(start: str) -> int:
    """Page faults of a program's second call in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _TRIES.format(start=start)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_a_second_call_finds_its_temporaries_memory() -> None:
    kept = faults("from cns_jax.core.memory import keep_memory; keep_memory()")
    assert kept < 1000 < faults("")


def test_cycles_are_still_collected_but_not_looked_for_among_what_is_there() -> None:
    class Node:
        def __init__(self) -> None:
            self.itself = self

    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_freeze_count() > 10_000
        first = weakref.ref(Node())
        for _ in range(1000):
            Node()
        assert first() is not None
        for _ in range(60_000):
            Node()
        assert first() is None
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
