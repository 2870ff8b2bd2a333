"""Parity as an assertion."""

from __future__ import annotations

from benchmarks.parity.errors import FLOAT32, relative_error

__all__ = ["FLOAT32", "assert_parity", "relative_error"]


def assert_parity(ours, theirs, what: str, tolerance: float = FLOAT32) -> None:
    """Print the error and fail beyond the tolerance."""
    error = relative_error(ours, theirs)
    print(f"{what}: max relative error {error:.2e} (allowed {tolerance:.0e})")
    assert error <= tolerance, f"{what}: {error:.2e} > {tolerance:.0e}"
