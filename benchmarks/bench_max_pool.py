"""Max pooling of images, windows of 2 × 2, forward, and forward with backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, normal, pair


def _windows(x: Any) -> Any:
    """The four values of each window last, shape (N, C, H / 2, W / 2, 4)."""
    n, c, height, width = x.shape
    return np.moveaxis(x.reshape(n, c, height // 2, 2, width // 2, 2), 3, 4).reshape(n, c, height // 2, width // 2, 4)


def definition(x: Any) -> Any:
    return _windows(x).max(axis=-1)


def derivative(dy: Any, x: Any) -> tuple[Any, ...]:
    windows = _windows(x)
    first = windows.argmax(axis=-1)[..., None] == np.arange(4)  # of equal values the first has it
    n, c, height, width = x.shape
    parts = (dy[..., None] * first).reshape(n, c, height // 2, width // 2, 2, 2)
    return (np.moveaxis(parts, 4, 3).reshape(x.shape),)


MAX_POOL = Operation(
    lambda layers, x: layers.max_pool2d(x, 2),
    lambda torch, x: torch.nn.functional.max_pool2d(x, 2),
    definition,
    derivative,
)


def cases(batch: int, channels: int, size: int, **options: Any) -> list[Case]:
    x, y = (batch, channels, size, size), (batch, channels, size // 2, size // 2)
    return pair(
        "max pool",
        f"{batch}×{channels}×{size}²",
        MAX_POOL,
        lambda rng: (normal(rng, *x), normal(rng, *y)),
        (math.prod(x) + math.prod(y)) // 2,
        suite="kernels",
        needs=("layers.max_pool2d",),
        **options,
    )


CASES = [
    *cases(64, 32, 28),
    *cases(64, 64, 112, devices=("cuda",), dtypes=("float32", "bfloat16")),
]


def bench_max_pool(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
