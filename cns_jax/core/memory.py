"""How this process holds memory on a CPU."""

from __future__ import annotations

import ctypes

import jax

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_memory() -> None:
    """Let memory that a program's temporaries have freed stay with the process; to be called before JAX finds a device.

    XLA allocates a call's temporaries in one piece. glibc maps a large piece anew every time, and the kernel clears it
    page by page: a quarter of the miniature's training step (benchmarks/NOTES.md). From the heap it comes as it was
    left; but only the main thread's heap grows that far, so programs run in the thread that calls them. Other C
    libraries are left alone, and so are GPUs and TPUs, which have allocators of their own.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
