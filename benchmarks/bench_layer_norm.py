"""Layer normalisation forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, Run, normal, pair, with_numpy


def normalised(x: Any) -> tuple[Any, Any]:
    """The rows brought to mean 0 and variance 1, and one over each row's standard deviation."""
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)
    return centred * rstd, rstd


def definition(x: Any, weight: Any, bias: Any) -> Any:
    return normalised(x)[0] * weight + bias


def derivative(dy: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    n, rstd = normalised(x)
    g = dy * weight
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - n * (g * n).mean(axis=-1, keepdims=True))
    return dx, (dy * n).sum(axis=0), dy.sum(axis=0)


LAYER_NORM = Operation(
    lambda layers, x, weight, bias: layers.layer_norm(x, x.shape[-1:], weight, bias),
    lambda torch, x, weight, bias: torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias),
    definition,
    derivative,
)


def bare_numpy(x: Any, weight: Any, bias: Any) -> Run:
    return lambda: (definition(x, weight, bias),)


def cases(rows: int, cols: int, **options: Any) -> list[Case]:
    forward, backward = pair(
        "layer norm",
        f"{rows}×{cols}",
        LAYER_NORM,
        lambda rng: (normal(rng, rows, cols), normal(rng, cols), normal(rng, cols), normal(rng, rows, cols)),
        rows * cols,
        suite="kernels",
        **options,
    )
    return [with_numpy(forward, bare_numpy), backward]


SWEEP = ("float32", "bfloat16", "float16")
CASES = [
    *cases(32, 64),
    *cases(256, 1024, quick=True),
    *cases(4096, 1024, targets=("W6 layer norm f", "W6 layer norm f+b")),
    *cases(1024, 8192),
    *(case for cols in (1024, 2048, 4096, 8192, 16384) for case in cases(8192, cols, devices=("cuda",), dtypes=SWEEP)),
]


def bench_layer_norm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
