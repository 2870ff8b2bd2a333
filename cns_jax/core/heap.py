"""The C library's heap."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_heap() -> None:
    """Let memory that was freed stay with the process. glibc maps a large piece anew every time, and the kernel clears
    it page by page; from the heap it comes as it was left. Other C libraries are left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
