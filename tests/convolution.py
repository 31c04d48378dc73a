"""One convolution with its three derivatives on a device, judged against the float64 definition on the CPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import lamella
from lamella import kernels
from lamella.backend import Device, backend_for, in_format

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
TF32 = 2.0**-11  # of each factor


class Case(NamedTuple):
    """A convolution: shapes, windows, and how its arrays are stored."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    dtype: Any = np.float32
    channels_last: bool = False
    precision: str = "float32"
    bias: bool = True
    relu: bool = False

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}


def check(case: Case, device: Device) -> None:
    """Every value within twice the rounding of the dtype, plus what a float32 sum may lose.

    Factors that are rounded to tf32 are so before the definition sees them only up to their rounding, so each term may
    err by it.
    """
    rng = np.random.default_rng(sum(case.x) + sum(case.weight))
    dtype, kernel = np.dtype(case.dtype), case.weight[2:]
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in (case.x, case.weight))
    bias = rng.standard_normal(case.weight[0]).astype(dtype) if case.bias else None
    wide = [None if a is None else a.astype(np.float64) for a in (x, weight, bias)]
    expected = kernels.conv(*wide, **case.options())
    dy = rng.standard_normal(expected.shape).astype(dtype)
    if case.relu:
        expected = np.maximum(expected, 0)

    backend = backend_for(device)

    def put(a: Any) -> Any:
        array = backend.from_numpy(a, device)
        return in_format(array, case.channels_last) if a.ndim > 2 else array

    xs, ds, ws = put(x), put(dy), backend.from_numpy(weight, device)
    bs = None if bias is None else put(bias)
    with lamella.precision(case.precision):
        found = (
            kernels.conv(xs, ws, bs, activation="relu" if case.relu else None, **case.options()),
            kernels.conv_backward_data(ds, ws, x.shape[2:], **case.options()),
            kernels.conv_backward_weight(ds, xs, kernel, **case.options()),
        )
    right = (
        (expected, kernels.conv(*(None if a is None else abs(a) for a in wide), **case.options())),
        _both(lambda d, w: kernels.conv_backward_data(d, w, x.shape[2:], **case.options()), dy, weight),
        _both(lambda d, a: kernels.conv_backward_weight(d, a, kernel, **case.options()), dy, x),
    )
    term = 2 * TF32 if case.precision == "tf32" else 8 * UNIT["float32"]
    for name, result, (value, size) in zip(("y", "dx", "dweight"), found, right, strict=True):
        assert result.dtype == dtype, name
        result = backend.to_numpy(result).astype(np.float64)
        assert result.shape == value.shape, name
        excess = abs(result - value) - UNIT[dtype.name] * abs(value) - term * size - 1e-30
        assert excess.max(initial=-1) <= 0, f"{name}: wrong by {abs(result - value).max()}"


def _both(function: Any, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A product in float64, and the sum of the sizes of its terms."""
    wide = [a.astype(np.float64) for a in arrays]
    return function(*wide), function(*map(abs, wide))
