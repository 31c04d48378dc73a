"""A residual connection and its layer normalisation as one operation: ``layer_norm(residual + x)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamella.benchmarks import bench_layer_norm
from lamella.benchmarks.case import Case, Operation, normal, pair


def definition(x: Any, residual: Any, weight: Any, bias: Any) -> Any:
    return bench_layer_norm.definition(x + residual, weight, bias)


def derivative(dy: Any, x: Any, residual: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    dx, dweight, dbias = bench_layer_norm.derivative(dy, x + residual, weight, bias)
    return dx, dx, dweight, dbias


ADD_LAYER_NORM = Operation(
    lambda layers, x, residual, weight, bias: layers.dropout_add_layer_norm(
        x, residual, x.shape[-1:], weight, bias, p=0.0
    )[0],
    lambda torch, x, residual, weight, bias: torch.nn.functional.layer_norm(residual + x, x.shape[-1:], weight, bias),
    definition,
    derivative,
    batched=2,
)


def cases(rows: int, cols: int, **options: Any) -> list[Case]:
    def numbers(rng: Any) -> tuple[Any, ...]:
        x, residual, dy = (normal(rng, rows, cols) for _ in range(3))
        return x, residual, normal(rng, cols), normal(rng, cols), dy

    return pair(
        "add+norm",
        f"{rows}×{cols}",
        ADD_LAYER_NORM,
        numbers,
        3 * rows * cols // 2,
        suite="kernels",
        needs=("layers.dropout_add_layer_norm",),
        **options,
    )


CASES = [
    *cases(4096, 1024),
    *cases(8192, 4096, devices=("cuda",), dtypes=("float32", "bfloat16")),
]


def bench_add_layer_norm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
