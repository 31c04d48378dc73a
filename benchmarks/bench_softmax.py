"""Softmax forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, Run, normal, pair, with_numpy


def definition(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def derivative(dy: Any, x: Any) -> tuple[Any, ...]:
    y = definition(x)
    return (y * (dy - (y * dy).sum(axis=-1, keepdims=True)),)


SOFTMAX = Operation(lambda layers, x: layers.softmax(x), lambda torch, x: torch.softmax(x, -1), definition, derivative)


def bare_numpy(x: Any) -> Run:
    return lambda: (definition(x),)


def cases(rows: int, cols: int, **options: Any) -> list[Case]:
    forward, backward = pair(
        "softmax",
        f"{rows}×{cols}",
        SOFTMAX,
        lambda rng: (normal(rng, rows, cols), normal(rng, rows, cols)),
        rows * cols,
        suite="kernels",
        **options,
    )
    return [with_numpy(forward, bare_numpy), backward]


SWEEP = ("float32", "bfloat16", "float16")
CASES = [
    *cases(32, 10),
    *cases(256, 1000, quick=True),
    *cases(4096, 1000, targets=("W6 softmax f", "W6 softmax f+b")),
    *cases(64, 50257),
    *(
        case
        for cols in (256, 1024, 4096, 16384, 65536, 262144)
        for case in cases((1 << 26) // cols, cols, devices=("cuda",), dtypes=SWEEP)
    ),
    *cases(1, 131072, devices=("cuda",), dtypes=SWEEP),
]


def bench_softmax(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
