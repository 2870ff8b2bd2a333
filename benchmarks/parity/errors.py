"""The measure and the tolerance of every comparison with PyTorch, here and in tests/parity."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT32 = 1e-4


def relative_error(ours: Any, theirs: Any) -> float:
    """max |ours - theirs| / max |theirs|."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
