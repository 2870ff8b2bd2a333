"""How this process holds memory."""

from __future__ import annotations

import gc

import jax

from cns_jax.core.heap import keep_heap


def keep_memory() -> None:
    """Let memory that a program's temporaries have freed stay with the process; to be called before JAX finds a device.

    XLA allocates a call's temporaries in one piece, and clearing it anew took a quarter of the miniature's training
    step (benchmarks/NOTES.md). Only the main thread's heap grows that far, so programs run in the thread that calls
    them. GPUs and TPUs have allocators of their own.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    keep_heap()


def collect_seldom() -> None:
    """Let Python look for unreachable cycles among new objects after 50,000 of them instead of 700, and never again
    among those that exist now: what a start imports and traces are some 450,000 that stay, and looking through them
    took 1.3 of its 39 seconds of CPU (benchmarks/NOTES.md)."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
