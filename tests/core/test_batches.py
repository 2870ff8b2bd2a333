from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core import batches
from cns_jax.core.batches import in_batches, parts_of
from cns_jax.core.compiling import jit


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_every_row_comes_back_in_its_place_through_one_program(count: int) -> None:
    double = jax.jit(lambda x, y: {"both": x + y, "first": 2 * x})
    x, y = np.arange(2 * count, dtype=np.float32).reshape(count, 2), np.ones((count, 2), np.float32)
    found = in_batches(double, 4, x, y)
    np.testing.assert_array_equal(found["both"], x + 1)
    np.testing.assert_array_equal(found["first"], 2 * x)
    assert isinstance(found["first"], np.ndarray)
    assert double._cache_size() == 1


def test_no_more_rows_than_a_batch_at_a_time() -> None:
    sizes: list[int] = []
    in_batches(lambda x: sizes.append(len(x)) or jnp.asarray(x), 3, np.zeros(7))
    assert sizes == [3, 3, 3]


def test_no_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        in_batches(np.asarray, 4, np.zeros((0, 2)))


def test_each_core_takes_a_part_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(batches, "cores", lambda: 3)
    sizes: list[int] = []
    waiting = threading.Barrier(2)

    def together(x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        waiting.wait(10)  # breaks unless two parts are at work
        return 2 * x

    x = np.arange(14.0)
    np.testing.assert_array_equal(in_batches(together, 8, x), 2 * x)  # three cores, of which 8 rows keep two busy
    alone = np.arange(2.0)
    np.testing.assert_array_equal(in_batches(lambda x: sizes.append(len(x)) or x, 8, alone), alone)
    in_batches(lambda x: sizes.append(len(x)) or x, 4, alone)
    assert sizes == [4, 4, 4, 4, 4, 4]
    assert [parts_of(size) for size in (1, 3, 5, 6, 10, 12)] == [1, 1, 1, 2, 2, 3]
    double = jit()(lambda x: 2 * x)
    in_batches(double, 12, np.arange(12.0, dtype=np.float32))
    assert double.jitted._cache_size() == 1
