"""Casts are NumPy's, bit by bit, whoever computes them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cns_jax.core.casting import cast


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("size", [7, 2**16, 2**16 + 5, 2**20 + 2**16 + 1])
def test_float16_by_xla_is_numpys(size: int) -> None:
    """Numbers of every exponent, of both signs: those that become subnormal, nothing, or infinite too; and ties."""
    bits = np.random.default_rng(0).integers(0, 2**32, size, np.uint32)
    bits[::3] &= 0xFFFFF000  # exactly between two float16 where the last of the kept bits is set
    floats = bits.view(np.float32)
    floats[np.isnan(floats)] = np.nan
    wanted = floats.astype(np.float16)
    np.testing.assert_array_equal(cast(floats, np.float16).view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_shape_and_order_are_kept(dtype: type) -> None:
    array = np.random.default_rng(0).normal(size=(300, 500)).astype(np.float32).T
    found = cast(array, dtype)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array.astype(dtype))
