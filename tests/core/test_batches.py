from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cns_jax.core.batches import by_kind, in_batches


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


def test_kinds_are_put_through_apart_and_come_back_in_order() -> None:
    seen = []

    def rows(which: list[int]) -> np.ndarray:
        seen.append(which)
        return np.asarray(which)[:, None] * 10

    np.testing.assert_array_equal(by_kind("abacb", rows)[:, 0], [0, 10, 20, 30, 40])
    assert seen == [[0, 2], [1, 4], [3]]
    np.testing.assert_array_equal(by_kind("aa", rows)[:, 0], [0, 10])
