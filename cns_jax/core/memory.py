"""How this process holds memory on a CPU."""

from __future__ import annotations

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
