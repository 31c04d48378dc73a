"""Convolution with few channels in a group, ``kernels/direct_conv.cu``: every variant against the definition."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.backend import Device, backend_for, in_format

from .convolution import Case, check

HALF, BFLOAT = np.float16, ml_dtypes.bfloat16

QUICK = {
    "planes": Case((2, 6, 7, 6), (9, 2, 3, 4), 1, 1, 1, 3, relu=True),
    "depthwise, eight channels a thread": Case((2, 16, 9, 7), (16, 1, 3, 4), (2, 1), 2, (1, 2), 16, HALF, True),
    "groups of channels": Case((2, 6, 5, 4, 6), (9, 2, 2, 3, 2), (1, 2, 3), 1, 1, 3, BFLOAT, True, bias=False),
}
WIDE = {
    "depthwise planes": Case((2, 6, 7, 6), (6, 1, 3, 3), 1, 1, 1, 6),
    "multiplier": Case((1, 4, 12), (12, 1, 5), 1, ((4, 0),), 1, 4, HALF),
    "multiplier, channels-last": Case((2, 33, 5, 6), (66, 1, 3, 3), 1, 1, 1, 33, np.float32, True),
    "four channels a thread": Case((2, 36, 5, 6), (36, 1, 5, 5), 1, 2, 1, 36, np.float32, True),
    "eight bfloat16 a thread": Case((2, 8, 5, 6), (8, 1, 7, 7), 1, 3, 1, 8, BFLOAT, True),
    "single bfloat16": Case((2, 3, 5, 6), (3, 1, 3, 3), 1, 1, 1, 3, BFLOAT),
    "single half, channels-last": Case((2, 3, 5, 6), (3, 1, 3, 3), 2, 1, 1, 3, HALF, True),
    "parts": Case((3, 2, 90, 30), (2, 1, 3, 3), 1, 1, 1, 2),
    "no entry reaches": Case((1, 2, 9), (2, 1, 2), 4, 3, 2, 2),
}


@pytest.mark.parametrize("case", QUICK.values(), ids=QUICK)
def test_values_and_gradients_are_those_of_the_definition(case: Case, device: Device) -> None:
    check(case, device)
    if device.kind == "simulator":
        launches = backend_for("simulator").launches
        assert launches["direct_product"] >= 2
        assert launches["direct_weight"] == launches["sum_parts"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("case", WIDE.values(), ids=WIDE)
def test_wide_cases(case: Case, device: Device) -> None:
    check(case, device)
    if device.kind == "simulator":
        assert backend_for("simulator").launches["direct_weight"] == 1


def test_explain_names_the_variant(simulator) -> None:
    x = backend_for("simulator").from_numpy(np.zeros((1, 8, 6, 6), HALF), lamella.device("simulator"))
    weight = x[0, :, None, :3, :3].copy()
    assert kernels.explain("conv2d", x, weight, groups=8).startswith("direct_product [DTYPE=half VECTOR=1 RUN=1")
    last = kernels.explain("conv2d", in_format(x, True), weight, groups=8)
    assert "LAST VECTOR=8" in last
    assert "few channels in a group, summed directly, 8 channels of 4 positions a thread" in last
