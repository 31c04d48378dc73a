"""Layer normalisation forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lamella import kernels
from lamella.backend import Device, backend_for

SHAPES = [(32, 64), (4096, 1024), (1024, 8192)]


def definition(x: Any) -> tuple[Any, Any]:
    """The normalised rows, and one over each row's standard deviation."""
    c = x.astype(np.float64) - x.mean(axis=-1, keepdims=True, dtype=np.float64)
    rstd = 1 / np.sqrt((c * c).mean(axis=-1, keepdims=True) + 1e-5)
    return c * rstd, rstd


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_layer_norm(shape: tuple[int, int], device: Device, measure: Callable[..., None]) -> None:
    backend = backend_for(device)
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s, dtype=np.float32) for s in (shape, shape[1:], shape[1:]))
    xs, weights, biases = (backend.from_numpy(a, device) for a in (x, weight, bias))
    measure(lambda: kernels.layer_norm(xs, weights, biases)[0], definition(x)[0] * weight + bias, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_layer_norm_with_backward(shape: tuple[int, int], device: Device, measure: Callable[..., None]) -> None:
    backend = backend_for(device)
    rng = np.random.default_rng(0)
    x, dy, weight, bias = (rng.standard_normal(s, dtype=np.float32) for s in (shape, shape, shape[1:], shape[1:]))
    xs, dys, weights, biases = (backend.from_numpy(a, device) for a in (x, dy, weight, bias))

    def run() -> Any:
        _, mean, rstd = kernels.layer_norm(xs, weights, biases)
        return kernels.layer_norm_backward(dys, xs, mean, rstd, weights)[0]

    n, rstd = definition(x)
    g = dy.astype(np.float64) * weight
    expected = rstd * (g - g.mean(axis=-1, keepdims=True) - n * (g * n).mean(axis=-1, keepdims=True))
    measure(run, expected, atol=1e-5)
