"""Products of stacks through the one door: right in every dtype, on every device, against float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella.backend import Device, backend_for

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPES = [
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),  # one matrix for a stack
    ((2, 3, 4), (2, 4, 5)),
    ((4, 5), (2, 5, 3)),
    ((2, 1, 3, 7), (1, 3, 7, 2)),  # both are repeated
    ((3, 1, 1), (3, 1, 1)),
    ((2, 3, 0), (2, 0, 5)),  # a sum of nothing
    ((0, 3, 4), (0, 4, 5)),
    ((2, 0, 4), (4, 5)),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_stacks_agree_with_float64(left: tuple[int, ...], right: tuple[int, ...], dtype: type, device: Device) -> None:
    backend, rng = backend_for(device), np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in (left, right))
    c = backend.matmul(backend.from_numpy(a, device), backend.from_numpy(b, device))
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert c.dtype == dtype
    assert c.shape == expected.shape
    close(backend.to_numpy(c), expected, dtype)


def test_transposed_views_are_taken(device: Device) -> None:
    backend, rng = backend_for(device), np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((2, 5, 3), (2, 4, 5)))
    x, y = backend.from_numpy(a, device), backend.from_numpy(b, device)
    c = backend.matmul(x.swapaxes(-1, -2), y.swapaxes(-1, -2))
    close(backend.to_numpy(c), np.swapaxes(a, 1, 2).astype(float) @ np.swapaxes(b, 1, 2).astype(float), np.float16)


@pytest.mark.parametrize("shape", [(1, 3000), (2, 2, 3000)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=lambda dtype: np.dtype(dtype).name)
def test_16_bits_accumulate_in_float32(shape: tuple[int, ...], dtype: type, device: Device) -> None:
    backend = backend_for(device)
    ones = backend.from_numpy(np.ones(shape, dtype), device)
    c = backend.to_numpy(backend.matmul(ones, ones.swapaxes(-1, -2)))
    np.testing.assert_array_equal(c.astype(np.float32), np.float32(dtype(3000)))  # a bfloat16 sum stops at 256


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=lambda dtype: np.dtype(dtype).name)
def test_gradients_of_16_bit_stacks(dtype: type, device: Device) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 4), (2, 4, 5)))
    x, y = (lamella.tensor(v, device=device, requires_grad=True) for v in (a, b))
    z = x @ y
    z.backward(backend_for(device).from_numpy(np.ones((2, 3, 5), dtype), device))
    backend, ones = backend_for(device), np.ones((2, 3, 5))
    assert x.grad is not None
    assert y.grad is not None
    close(backend.to_numpy(x.grad), ones @ b.astype(float).swapaxes(1, 2), dtype)
    close(backend.to_numpy(y.grad), a.astype(float).swapaxes(1, 2) @ ones, dtype)


def test_a_large_16_bit_product_is_written_into_out(device: Device) -> None:
    backend, rng = backend_for(device), np.random.default_rng(0)
    a = rng.standard_normal((70, 65)).astype(np.float16)
    out = backend.empty((70, 70), np.dtype(np.float16), device)
    x = backend.from_numpy(a, device)
    assert backend.gemm(x, x.T, out) is out
    close(backend.to_numpy(out), a.astype(float) @ a.T.astype(float), np.float16)


def test_stacks_that_do_not_fit_are_refused(device: Device) -> None:
    backend = backend_for(device)
    a, b = (backend.from_numpy(np.ones(shape, np.float16), device) for shape in ((2, 3, 4), (3, 4, 5)))
    with pytest.raises(ValueError, match=r"\(2, ?3, ?4\)"):
        lamella.tensor(a) @ lamella.tensor(b)


def close(got: np.ndarray, expected: np.ndarray, dtype: type) -> None:
    eps = float(ml_dtypes.finfo(dtype).eps)
    bound = 2 * eps * (np.abs(expected).max(initial=0.0) + 1)
    assert np.abs(got.astype(np.float64) - expected).max(initial=0.0) <= bound
