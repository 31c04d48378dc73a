"""Softmax forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lamella import kernels
from lamella.backend import Device, backend_for

SHAPES = [(32, 10), (4096, 1000), (64, 50257)]


def definition(x: Any) -> Any:
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_softmax(shape: tuple[int, int], device: Device, measure: Callable[..., None]) -> None:
    backend = backend_for(device)
    host = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    x = backend.from_numpy(host, device)
    measure(lambda: kernels.softmax(x), definition(host), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_softmax_with_backward(shape: tuple[int, int], device: Device, measure: Callable[..., None]) -> None:
    backend = backend_for(device)
    rng = np.random.default_rng(0)
    host, host_dy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    x, dy = backend.from_numpy(host, device), backend.from_numpy(host_dy, device)
    y = definition(host)
    expected = y * (host_dy - (y * host_dy).sum(axis=-1, keepdims=True))
    measure(lambda: kernels.softmax_backward(dy, kernels.softmax(x)), expected, atol=1e-6)
