"""RMS normalisation forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, normal, pair

_MINUTE = 1e-5  # eps, named in both libraries: their defaults differ


def _scale(x: Any) -> Any:
    return 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + _MINUTE)


def definition(x: Any, weight: Any) -> Any:
    return x * _scale(x) * weight


def derivative(dy: Any, x: Any, weight: Any) -> tuple[Any, ...]:
    r = _scale(x)
    n, g = x * r, dy * weight
    return r * (g - n * (g * n).mean(axis=-1, keepdims=True)), (dy * n).sum(axis=0)


RMS_NORM = Operation(
    lambda layers, x, weight: layers.rms_norm(x, x.shape[-1:], weight, _MINUTE),
    lambda torch, x, weight: torch.nn.functional.rms_norm(x, x.shape[-1:], weight, _MINUTE),
    definition,
    derivative,
)


def cases(rows: int, cols: int, **options: Any) -> list[Case]:
    return pair(
        "RMS norm",
        f"{rows}×{cols}",
        RMS_NORM,
        lambda rng: (normal(rng, rows, cols), normal(rng, cols), normal(rng, rows, cols)),
        rows * cols,
        suite="kernels",
        **options,
    )


SWEEP = ("float32", "bfloat16", "float16")
CASES = [
    *cases(4096, 1024),
    *(case for cols in (1024, 4096, 16384) for case in cases(8192, cols, devices=("cuda",), dtypes=SWEEP)),
]


def bench_rms_norm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
