"""im2col and col2im, and convolution by them and one product: every variant against the definition."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.backend import Device, backend_for, in_format

from .convolution import Case, check

HALF, BFLOAT = np.float16, ml_dtypes.bfloat16

WINDOWS = {
    "1-D": ((2, 3, 11), (3,), {"stride": 2, "padding": ((2, 1),), "dilation": 2}),
    "2-D": ((2, 3, 7, 6), (3, 2), {"stride": (1, 2), "padding": (1, 0)}),
    "3-D": ((1, 2, 5, 4, 6), (2, 3, 2), {"stride": (1, 2, 3), "padding": 1}),
}


def columns64(x: np.ndarray, kernel: tuple[int, ...], stride=1, padding=0, dilation=1) -> tuple[np.ndarray, np.ndarray]:
    """Every column by a loop over places, and for every value the flat index in x that it came from (-1: padding)."""
    axes = len(kernel)

    def each(value: Any) -> list[Any]:
        return list(value) if isinstance(value, tuple) else [value] * axes

    strides, dilations = each(stride), each(dilation)
    pads = [p if isinstance(p, tuple) else (p, p) for p in each(padding)]
    wide = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pads])
    origin = np.pad(np.arange(x.size).reshape(x.shape), [(0, 0), (0, 0), *pads], constant_values=-1)
    counts = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(wide.shape[2:], kernel, strides, dilations, strict=True)
    ]
    cols, sources = [], []
    for place in np.ndindex(*counts):
        window = tuple(
            slice(p * s, p * s + d * (k - 1) + 1, d)
            for p, s, d, k in zip(place, strides, dilations, kernel, strict=True)
        )
        cols.append(wide[(..., *window)].reshape(len(x), -1))
        sources.append(origin[(..., *window)].reshape(len(x), -1))
    return np.stack(cols, -1), np.stack(sources, -1)


@pytest.mark.parametrize("dtype", [np.float32, HALF, BFLOAT], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("channels_last", [False, True], ids=["planes", "channels-last"])
@pytest.mark.parametrize("case", WINDOWS.values(), ids=WINDOWS)
def test_columns_and_their_sum_are_those_of_a_loop(case, channels_last: bool, dtype: Any, device: Device) -> None:
    shape, kernel, options = case
    rng, backend = np.random.default_rng(1), backend_for(device)
    x = rng.standard_normal(shape).astype(dtype)
    expected, sources = columns64(x, kernel, **options)
    found = kernels.im2col(in_format(backend.from_numpy(x, device), channels_last), kernel, **options)
    np.testing.assert_array_equal(backend.to_numpy(found).astype(np.float64), expected)

    cols = rng.standard_normal(expected.shape).astype(dtype)
    back = np.zeros(x.size + 1)
    np.add.at(back, sources, cols.astype(np.float64))
    found = kernels.col2im(backend.from_numpy(cols, device), shape[2:], kernel, **options)
    unit = {4: 2.0**-22}.get(x.dtype.itemsize, 2.0**-8 if dtype is BFLOAT else 2.0**-11)
    np.testing.assert_allclose(
        backend.to_numpy(found).astype(np.float64), back[:-1].reshape(shape), rtol=unit, atol=unit
    )
    if device.kind == "simulator":
        launches = backend_for("simulator").launches
        assert launches["im2col"] == launches["col2im"] == 1


PRODUCTS = {
    "planes, one sample at a time": Case((3, 5, 9, 8), (130, 5, 3, 2), (2, 1), 1, (1, 2), relu=True),
    "channels-last": Case((2, 4, 7, 6), (129, 4, 3, 3), 1, ((0, 1), (2, 1)), channels_last=True, bias=False),
    "one length": Case((2, 6, 23), (128, 6, 4), 3, 2, 2, channels_last=True),
}


@pytest.mark.parametrize("case", PRODUCTS.values(), ids=PRODUCTS)
def test_products_of_columns_are_those_of_the_definition(case: Case, device: Device, monkeypatch) -> None:
    monkeypatch.setattr("lamella.kernels.im2col_gemm._IN_CACHE", 10_000)
    check(case, device)
    if device.kind == "simulator":
        launches = backend_for("simulator").launches
        assert launches["im2col"] >= 2
        assert launches["col2im"] >= 1
        assert not launches["gathered_product"]


@pytest.mark.parametrize("dtype", [np.float32, HALF, BFLOAT], ids=lambda d: np.dtype(d).name)
def test_old_devices_convolve_by_columns(dtype: Any, simulator, monkeypatch) -> None:
    monkeypatch.setattr(simulator, "capability", 75)
    check(Case((2, 8, 6, 5), (4, 8, 3, 3), 2, 1, dtype=dtype), lamella.device("simulator"))
    assert simulator.launches["im2col"] >= 2
    assert simulator.launches["col2im"] >= 1
    assert not simulator.launches["gathered_product"]


def test_explain_says_how_many_samples_have_columns_at_a_time(simulator) -> None:
    x = backend_for("simulator").from_numpy(np.zeros((4, 8, 32, 32), np.float32), lamella.device("simulator"))
    weight = backend_for("simulator").from_numpy(np.zeros((128, 8, 3, 3), np.float32), lamella.device("simulator"))
    said = kernels.explain("conv2d", x, weight, padding=1, workspace=600_000)
    assert said.startswith("im2col [DTYPE=float LAST], 64 blocks of 256 threads")
    assert "many output channels; copied to channels-last first and back, columns of 2 samples at a time" in said
    with lamella.precision("tf32"):
        assert "no columns are stored; copied to channels-last first; implicit GEMM by mma.sync in tf32" in (
            kernels.explain("conv2d", x, weight, padding=1)
        )
