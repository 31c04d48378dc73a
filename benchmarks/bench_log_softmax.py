"""Log-softmax forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, normal, pair


def definition(x: Any) -> Any:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def derivative(dy: Any, x: Any) -> tuple[Any, ...]:
    return (dy - np.exp(definition(x)) * dy.sum(axis=-1, keepdims=True),)


LOG_SOFTMAX = Operation(
    lambda layers, x: layers.log_softmax(x), lambda torch, x: torch.log_softmax(x, -1), definition, derivative
)


def cases(rows: int, cols: int, **options: Any) -> list[Case]:
    return pair(
        "log-softmax",
        f"{rows}×{cols}",
        LOG_SOFTMAX,
        lambda rng: (normal(rng, rows, cols), normal(rng, rows, cols)),
        rows * cols,
        suite="layers",
        **options,
    )


CASES = [
    *cases(32, 10),
    *cases(4096, 1000),
    *(
        case
        for cols in (1024, 65536)
        for case in cases((1 << 26) // cols, cols, devices=("cuda",), dtypes=("float32", "bfloat16"))
    ),
]


def bench_log_softmax(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
