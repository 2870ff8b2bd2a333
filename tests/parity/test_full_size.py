"""Stable Diffusion 1.5 and CLIP at full size: parity in float32, memory while loading. About ten minutes, 16 GB."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

from benchmarks.parity.__main__ import PARTS, run_part, write_reference

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference() -> Iterator[Path]:
    """PyTorch's models and answers; 9 GB that pytest's own folders would keep for three runs."""
    with tempfile.TemporaryDirectory() as folder:
        write_reference(Path(folder))
        yield Path(folder)


@pytest.mark.parametrize("part", PARTS)
def test_part(part: str, reference: Path) -> None:
    rows = run_part(reference, part)
    for row in rows:
        print(row)
    outside = [row for row in rows if not row.holds]
    assert not outside
