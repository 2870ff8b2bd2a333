"""Rows through a compiled function in batches of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from cns_jax.core.threads import cores, in_threads

_LEAST = 3  # rows a core: with one, Stable Diffusion 1.5's weights are read for each, and 128 px take an eighth longer


def in_batches(function: Callable[..., Any], size: int, *rows: np.ndarray, title: str = "") -> Any:
    """`function` of `size` rows of each array at a time; what it returns, put together again, as NumPy arrays.

    The last batch is filled up with repeated rows and cut again, so that one program serves every count. function:
    arrays (n, ...) to any pytree of arrays (n, ...), n `size`, or one of its `parts_of`. title: of a progress bar,
    shown where there is more than one batch. Raises ValueError if there are no rows.
    """
    count, parts = len(rows[0]), parts_of(size)
    if not count:
        raise ValueError("there are no rows to put through in batches")

    def part(start: int) -> Any:
        filled = [np.resize(array[start : start + size // parts], (size // parts, *array.shape[1:])) for array in rows]
        return jax.tree.map(np.asarray, function(*filled))

    starts, found = range(0, count, size), []
    for start in tqdm(starts, title, unit="batch", dynamic_ncols=True, disable=not title or len(starts) < 2):
        found += in_threads(part, range(start, min(start + size, count), size // parts))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:count], *found)


def parts_of(size: int) -> int:
    """Into how many equal parts a batch is split, each for a thread: on a CPU as many as there are cores, if each gets
    a few rows. That keeps cores busier than sharing every operation (benchmarks/NOTES.md)."""
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return 1
    return max((n for n in range(2, cores() + 1) if size % n == 0 and size // n >= _LEAST), default=1)
