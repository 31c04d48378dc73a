"""Convolution as gathered products, ``kernels/implicit_gemm.cu``: every variant against the float64 definition."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.backend import Device, backend_for

from .convolution import Case, check

implicit_gemm = importlib.import_module("lamella.kernels.implicit_gemm")
HALF, BFLOAT = np.float16, ml_dtypes.bfloat16

QUICK = {
    "single elements": Case((2, 3, 7, 6), (5, 3, 3, 3), 1, 1, relu=True),
    "half, groups, everything at once": Case(
        (2, 16, 9, 7), (24, 8, 3, 2), (2, 3), ((0, 1), (2, 1)), (2, 1), 2, HALF, True
    ),
    "bfloat16 in three dimensions": Case((2, 5, 5, 4, 6), (3, 5, 2, 3, 2), (1, 2, 3), 1, 1, 1, BFLOAT, bias=False),
    "tf32, several tiles, parts": Case((2, 4, 150), (68, 4, 3), 1, 1, 1, 1, np.float32, True, "tf32"),
    "several tiles of terms, groups, three parts": Case((2, 66, 193), (2, 33, 2), groups=2),
}
WIDE = {
    "stride beyond the kernel": Case((2, 5, 11, 10), (6, 5, 2, 2), 4, 1, channels_last=True),
    "no entry reaches": Case((1, 8, 9), (8, 8, 2), 4, 3, 2, 1, HALF, True),
    "one by one": Case((3, 8, 5, 5), (16, 8, 1, 1), dtype=HALF, channels_last=True),
    "one pixel": Case((3, 8, 3, 3), (16, 8, 3, 3), dtype=HALF),
    "cut borders": Case((1, 4, 8, 8), (8, 4, 3, 3), 1, ((2, 0), (0, 3)), channels_last=True),
    "first layer": Case((2, 3, 20, 17), (70, 3, 7, 7), 2, 3, dtype=HALF, channels_last=True),
    "copied to channels-last": Case((2, 16, 6, 7), (16, 16, 3, 3), 1, 1, dtype=BFLOAT),
    "float32 in groups": Case((2, 12, 8, 9), (24, 6, 3, 3), 2, 1, 1, 2),
    "large dilation": Case((1, 8, 21, 3), (8, 8, 5, 1), 3, (4, 0), (4, 2), 1, HALF, True),
}


@pytest.mark.parametrize("case", QUICK.values(), ids=QUICK)
def test_values_and_gradients_are_those_of_the_definition(case: Case, device: Device) -> None:
    check(case, device)
    if device.kind == "simulator":
        launches = backend_for("simulator").launches
        assert launches["gathered_product"] >= 2
        assert launches["weight_product"] == launches["sum_parts"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("case", WIDE.values(), ids=WIDE)
def test_wide_cases(case: Case, device: Device) -> None:
    check(case, device)
    if device.kind == "simulator":
        assert backend_for("simulator").launches["weight_product"] == 1


def _tiles() -> Iterator[Any]:
    """Every tile, dtype and vector; quick is one that a small convolution does not take."""
    for tile, dtype, vector in product(implicit_gemm._TILES, ("float32", "tf32", "half", "bfloat16"), ("one", "many")):
        name = f"{tile.rows}x{tile.columns}-{dtype}-{vector}"
        if dtype == "float32" and tile.columns == 128:
            continue  # no such variant: its sums do not fit the registers
        yield pytest.param(tile, dtype, vector, id=name, marks=() if name == "128x64-float32-one" else pytest.mark.slow)


@pytest.mark.parametrize(("tile", "dtype", "vector"), list(_tiles()))
def test_every_tile_is_right_at_its_edges_in_the_simulator(
    tile, dtype: str, vector: str, simulator, monkeypatch
) -> None:
    monkeypatch.setattr(implicit_gemm, "_TILES", (tile, tile))
    implicit_gemm._plan.cache_clear()
    stored = {"half": HALF, "bfloat16": BFLOAT}.get(dtype, np.float32)
    channels = 8 if vector == "many" else 7
    case = Case(
        (1, channels, 12, 11), (tile.columns + 8, channels, 3, 3), 1, 1, 1, 1, stored, True,
        "tf32" if dtype == "tf32" else "float32",
    )  # fmt: skip
    try:
        check(case, lamella.device("simulator"))
    finally:
        implicit_gemm._plan.cache_clear()


@pytest.fixture
def images(simulator):
    return backend_for("simulator").from_numpy(np.zeros((1, 8, 6, 6), HALF), lamella.device("simulator"))


def test_explain_names_what_is_copied_and_how_it_loads(images) -> None:
    said = kernels.explain("conv2d", images, images[:, :, :3, :3].copy(), padding=1)
    assert said.startswith("gathered_product [DTYPE=half VECTOR=8 ROWS=64")
    assert "copied to channels-last first; implicit GEMM by mma.sync" in said
    odd = images[:, :7].copy()
    assert "single elements" in kernels.explain("conv2d", odd, odd[:, :, :3, :3].copy())


def test_an_old_device_takes_the_definition(images, simulator, monkeypatch) -> None:
    monkeypatch.setattr(simulator, "capability", 75)
    weight = images[:, :, :3, :3].copy()
    said = kernels.explain("conv2d", images, weight)
    assert "plain array definition: gathered products need compute capability 8.0, the device has 7.5" in said
    kernels.conv(images, weight)
    assert simulator.launches["gathered_product"] == 0


def test_results_repeat_bit_for_bit_whatever_the_schedule(simulator) -> None:
    backend, rng = backend_for("simulator"), np.random.default_rng(0)
    x, dy = (
        backend.from_numpy(rng.standard_normal((2, 3, 60)).astype(np.float32), lamella.device("simulator"))
        for _ in range(2)
    )
    first, second = (backend.to_numpy(kernels.conv_backward_weight(dy, x, (3,), padding=1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_relu_keeps_nan(device: Device) -> None:
    backend = backend_for(device)
    x = np.array([[[np.nan, 1, -1, 2]]], np.float32)
    weight = backend.from_numpy(np.array([[[1]]], np.float32), device)
    y = kernels.conv(backend.from_numpy(x, device), weight, activation="relu")
    np.testing.assert_array_equal(backend.to_numpy(y), [[[np.nan, 1, 0, 2]]])
    with pytest.raises(ValueError, match="conv: activation must be 'relu' or None, got 'gelu'"):
        kernels.conv(weight, weight, activation="gelu")
