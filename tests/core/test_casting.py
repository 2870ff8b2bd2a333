"""Casts are NumPy's, bit by bit, whoever computes them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cns_jax.core.casting import cast, in_c_order


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("size", [7, 2**16, 2**16 + 5, 2**20 + 2**16 + 1])
def test_float16_by_xla_is_numpys(size: int) -> None:
    """Numbers of every exponent, of both signs: those that become subnormal, nothing, or infinite too; and ties."""
    bits = np.random.default_rng(0).integers(0, 2**32, size, np.uint32)
    bits[::3] &= 0xFFFFF000  # exactly between two float16 where the last of the kept bits is set
    floats = bits.view(np.float32)
    floats[np.isnan(floats)] = np.nan
    wanted = floats.astype(np.float16)
    np.testing.assert_array_equal(cast([floats], np.float16)[0].view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_many_arrays_keep_their_places(dtype: type) -> None:
    """Small ones that are cast together, in several pieces, between large ones and one that has the dtype."""
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (600, 500), (), (0, 4), *[(400, 500)] * 4, (1100, 1000), (7,)]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes] + [np.ones((2, 3), np.float16)]
    for found, array in zip(cast(arrays, dtype), arrays, strict=True):
        assert found.flags.c_contiguous and found.dtype == dtype
        np.testing.assert_array_equal(found, array.astype(dtype))
    assert cast([], dtype) == []


def test_what_has_the_dtype_is_not_copied() -> None:
    array = np.ones((4, 5), np.float32)
    assert cast([array], np.float32)[0] is array


@pytest.mark.parametrize("shape", [(700, 390), (3, 3, 250, 130), (4, 6)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_c_order(shape: tuple[int, ...], dtype: type) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    assert in_c_order(array) is array
    for turned in (array.T, np.moveaxis(array, 0, -1)):
        found = in_c_order(turned)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, turned)
