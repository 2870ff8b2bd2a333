"""Tensors read one by one: each from its own file and rows, few openings, and not more mapped than is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cns_jax.weights import tensors
from cns_jax.weights.tensors import Stored, index_file, read_each


@pytest.fixture
def stored(tmp_path: Path) -> list[Stored]:
    """Two of one file, one of another, one of the first again."""
    values = {"a": np.float16([1, 2]), "b": np.int32([[3], [4], [5]]), "c": np.float32([6])}
    save_file(values, tmp_path / "one.safetensors")
    save_file({"a": np.float32([7, 8, 9])}, tmp_path / "two.safetensors")
    one, two = (index_file(tmp_path / f"{name}.safetensors")[0] for name in ("one", "two"))
    return [one["a"], replace(one["b"], shape=(1, 1), rows=slice(1, 2)), two["a"], one["c"]]


@pytest.mark.parametrize(("mapped", "openings"), [(100, 3), (2, 4), (1, 4)])
def test_small_neighbours_are_read_by_one_opening(
    stored: list[Stored], mapped: int, openings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    of_library = tensors.safe_open
    monkeypatch.setattr(tensors, "_MAPPED", mapped)
    monkeypatch.setattr(tensors, "safe_open", lambda file, **kw: opened.append(file) or of_library(file, **kw))
    found = list(read_each(stored))
    assert [x.tolist() for x in found] == [[1, 2], [[4]], [7, 8, 9], [6]]
    assert [x.dtype for x in found] == [np.float32, np.int32, np.float32, np.float32]
    assert len(opened) == openings
