"""GELU by erf, and ReLU: elementwise, forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, normal, pair


def _phi(x: Any) -> Any:
    """The normal distribution function, value by value: the judge may be slow, it looks at a few rows."""
    return 0.5 * np.frompyfunc(lambda v: math.erfc(-v * math.sqrt(0.5)), 1, 1)(x).astype(np.float64)


def definition(x: Any) -> Any:
    return x * _phi(x)


def derivative(dy: Any, x: Any) -> tuple[Any, ...]:
    return (dy * (_phi(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),)


GELU = Operation(lambda layers, x: layers.gelu(x), lambda torch, x: torch.nn.functional.gelu(x), definition, derivative)
RELU = Operation(
    lambda layers, x: layers.relu(x),
    lambda torch, x: torch.relu(x),
    lambda x: np.maximum(x, 0),
    lambda dy, x: (dy * (x > 0),),
)


def cases(name: str, work: Operation, rows: int, cols: int, **options: Any) -> list[Case]:
    return pair(
        name,
        f"{rows}×{cols}",
        work,
        lambda rng: (normal(rng, rows, cols), normal(rng, rows, cols)),
        rows * cols,
        suite="layers",
        **options,
    )


CASES = [
    *cases("GELU", GELU, 256, 1024, quick=True),
    *cases("GELU", GELU, 4096, 4096, targets=("W6 GELU f", "W6 GELU f+b")),
    *cases("ReLU", RELU, 4096, 4096),
    *cases("GELU", GELU, 8192, 8192, devices=("cuda",), dtypes=("float32", "bfloat16")),
]


def bench_gelu(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
