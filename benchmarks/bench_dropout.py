"""Dropout forward, and forward with backward. Masks are random, so each value is judged by the two it may take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, lamella_backward, lamella_forward, normal, torch_backward, torch_forward

P = 0.1


def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    """How far values are from 0 and from x / (1 - p); NaN where too many or too few were dropped, or dx has others."""
    x = inputs[0]
    y = results[0].astype(np.float64)
    dropped = y == 0
    spread = 6 * math.sqrt(P * (1 - P) / y.size)  # six standard deviations
    if not abs(float(dropped.mean()) - P) <= spread + float((x == 0).mean()):
        return math.nan
    worst = float(np.max(np.abs(np.where(dropped, 0.0, y - x / (1 - P))))) / float(np.max(np.abs(x)))
    if len(results) > 1:
        dy = inputs[1]
        expected = np.where(dropped, 0.0, dy / (1 - P))
        dx = results[1].astype(np.float64)
        worst = max(worst, float(np.max(np.abs(np.where(x == 0, 0.0, dx - expected)))) / float(np.max(np.abs(dy))))
    return worst


def _lamella(layers: Any, x: Any) -> Any:
    return layers.dropout(x, P)


def _torch(torch: Any, x: Any) -> Any:
    return torch.nn.functional.dropout(x, P)


def cases(rows: int, cols: int, **options: Any) -> list[Case]:
    def numbers(rng: Any) -> tuple[Any, ...]:
        return normal(rng, rows, cols), normal(rng, rows, cols)

    elements = rows * cols
    forward = Case(
        name=f"dropout f {rows}×{cols}",
        suite="layers",
        numbers=lambda rng: numbers(rng)[:-1],
        contenders={"lamella": lamella_forward(_lamella), "torch": torch_forward(_torch)},
        error=error,
        values=2 * elements,
        family="dropout f",
        size=elements,
        **options,
    )
    backward = Case(
        name=f"dropout f+b {rows}×{cols}",
        suite="layers",
        numbers=numbers,
        contenders={"lamella": lamella_backward(_lamella), "torch": torch_backward(_torch)},
        error=error,
        values=4 * elements,
        family="dropout f+b",
        size=elements,
        **options,
    )
    return [forward, backward]


CASES = [*cases(1024, 1024), *cases(8192, 4096, devices=("cuda",), dtypes=("float32", "bfloat16"))]


def bench_dropout(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
