"""Batch normalisation of images in training, forward, and forward with backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, normal, pair, relative_error, worst

_IMAGE = (0, 2, 3)


def normalised(x: Any) -> tuple[Any, Any]:
    """Each channel brought to mean 0 and variance 1, and one over its standard deviation."""
    centred = x - x.mean(axis=_IMAGE, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(axis=_IMAGE, keepdims=True) + 1e-5)
    return centred * rstd, rstd


def definition(x: Any, weight: Any, bias: Any) -> Any:
    return normalised(x)[0] * weight[:, None, None] + bias[:, None, None]


def derivative(dy: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    n, rstd = normalised(x)
    g = dy * weight[:, None, None]
    dx = rstd * (g - g.mean(axis=_IMAGE, keepdims=True) - n * (g * n).mean(axis=_IMAGE, keepdims=True))
    return dx, (dy * n).sum(axis=_IMAGE), dy.sum(axis=_IMAGE)


def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    """Judges all values: each depends on every image of the batch."""
    x, weight, bias, *dy = inputs
    expected = [definition(x, weight, bias), *(derivative(dy[0], x, weight, bias) if dy else ())]
    return worst([relative_error(r.astype(np.float64), e) for r, e in zip(results, expected, strict=True)])


BATCH_NORM = Operation(
    lambda layers, x, weight, bias: layers.batch_norm(x, None, None, weight, bias, True),
    lambda torch, x, weight, bias: torch.nn.functional.batch_norm(x, None, None, weight, bias, True),
    definition,
    derivative,
)


def cases(*shape: int, **options: Any) -> list[Case]:
    channels = shape[1]
    found = pair(
        "batch norm",
        "×".join(map(str, shape)),
        BATCH_NORM,
        lambda rng: (normal(rng, *shape), normal(rng, channels), normal(rng, channels), normal(rng, *shape)),
        math.prod(shape),
        suite="kernels",
        needs=("layers.batch_norm",),
        **options,
    )
    return [Case(**{**vars(case), "error": error}) for case in found]


CASES = [
    *cases(16, 64, 32, 32),
    *cases(64, 256, 56, 56, devices=("cuda",), dtypes=("float32", "bfloat16")),
]


def bench_batch_norm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
