"""Rows through a compiled function in batches of one size."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    return rows if len(rows) == size else np.resize(rows, (size, *rows.shape[1:]))


def in_batches(function: Callable[..., Any], size: int, *rows: np.ndarray, title: str = "") -> Any:
    """`function` of `size` rows of each array at a time; what it returns, put together again, as NumPy arrays.

    The last batch is filled up with repeated rows and cut again, so that one program serves every count. function:
    arrays (size, ...) to any pytree of arrays (size, ...). title: of a progress bar, shown where there is more than
    one batch. Raises ValueError if there are no rows.
    """
    count = len(rows[0])
    if not count:
        raise ValueError("there are no rows to put through in batches")
    starts, parts = range(0, count, size), []
    for start in tqdm(starts, title, unit="batch", dynamic_ncols=True, disable=not title or len(starts) < 2):
        batch = [_filled(array[start : start + size], size) for array in rows]
        parts.append(jax.tree.map(np.asarray, function(*batch)))
    return jax.tree.map(lambda *found: np.concatenate(found)[:count], *parts)


def by_kind(kinds: Sequence[Hashable], function: Callable[[list[int]], np.ndarray]) -> np.ndarray:
    """Rows that `function` makes, given the numbers of all rows of one kind at a time; in the order of `kinds`."""
    if len(set(kinds)) < 2:
        return function(list(range(len(kinds))))
    numbers, parts = list[int](), []
    for kind in dict.fromkeys(kinds):
        which = [i for i, other in enumerate(kinds) if other == kind]
        numbers += which
        parts.append(function(which))
    return np.concatenate(parts)[np.argsort(numbers)]
