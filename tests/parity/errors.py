"""One measure and one tolerance for all parity tests."""

from __future__ import annotations

import numpy as np

FLOAT32 = 1e-4


def relative_error(ours, theirs) -> float:
    """max |ours - theirs| / max |theirs|."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def assert_parity(ours, theirs, what: str, tolerance: float = FLOAT32) -> None:
    """Print the error and fail beyond the tolerance."""
    error = relative_error(ours, theirs)
    print(f"{what}: max relative error {error:.2e} (allowed {tolerance:.0e})")
    assert error <= tolerance, f"{what}: {error:.2e} > {tolerance:.0e}"
