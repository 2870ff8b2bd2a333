"""Leaves of every size, in PyTorch's layout and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cns_jax.core.casting import in_c_order
from cns_jax.weights.layout import file_shape, from_file, tensors, to_file

SHAPES = [(4, 6), (260, 255), (700, 390), (2, 600_000), (3, 3, 5, 7), (3, 3, 250, 130)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_kernels_are_transposed_and_back(shape: tuple[int, ...], dtype: type) -> None:
    kernel = np.random.default_rng(0).normal(size=shape).astype(dtype)
    found = in_c_order(to_file("a.kernel", kernel))
    assert found.shape == file_shape("a.kernel", shape)
    assert found.flags.c_contiguous and found.dtype == dtype
    np.testing.assert_array_equal(found, kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1))
    back = from_file("a.kernel", found)
    assert np.shares_memory(back, found) and to_file("a.kernel", back).flags.c_contiguous
    np.testing.assert_array_equal(in_c_order(back), kernel)


def test_what_was_read_is_written_without_a_copy() -> None:
    stored = np.random.default_rng(0).normal(size=(3, 3, 70, 60)).astype(np.float32).transpose(3, 2, 0, 1).copy()
    written = tensors({"a.kernel": from_file("a.kernel", stored)}, np.float32)["a.weight"]
    assert written is not stored and np.shares_memory(written, stored)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_of_a_tree(dtype: type) -> None:
    rng = np.random.default_rng(0)
    flat = {f"a{i}.kernel": rng.normal(size=shape).astype(np.float32) for i, shape in enumerate(SHAPES)}
    flat |= {"b.bias": rng.normal(size=9).astype(ml_dtypes.bfloat16), "b.scale": np.float32([[1.0, 2.0]])}
    found = tensors(flat, dtype)
    assert list(found) == [*(f"a{i}.weight" for i in range(len(SHAPES))), "b.bias", "b.weight"]
    for (name, leaf), tensor in zip(flat.items(), found.values(), strict=True):
        assert tensor.dtype == dtype and tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, to_file(name, leaf.astype(dtype)))
    assert tensors({}, dtype) == {}
