"""Group normalisation of images forward, and forward with backward, against the float64 definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, normal, pair

GROUPS = 32


def _normalised(x: Any) -> tuple[Any, Any]:
    grouped = x.reshape(len(x), GROUPS, -1)
    centred = grouped - grouped.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)
    return centred * rstd, rstd


def definition(x: Any, weight: Any, bias: Any) -> Any:
    return _normalised(x)[0].reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def derivative(dy: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    n, rstd = _normalised(x)
    g = (dy * weight[:, None, None]).reshape(n.shape)
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - n * (g * n).mean(axis=-1, keepdims=True))
    return dx.reshape(x.shape), (dy * n.reshape(x.shape)).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))


GROUP_NORM = Operation(
    lambda layers, x, weight, bias: layers.group_norm(x, GROUPS, weight, bias),
    lambda torch, x, weight, bias: torch.nn.functional.group_norm(x, GROUPS, weight, bias),
    definition,
    derivative,
)


def cases(*shape: int, **options: Any) -> list[Case]:
    channels = shape[1]
    return pair(
        "group norm",
        "×".join(map(str, shape)),
        GROUP_NORM,
        lambda rng: (normal(rng, *shape), normal(rng, channels), normal(rng, channels), normal(rng, *shape)),
        math.prod(shape),
        suite="kernels",
        **options,
    )


CASES = [
    *cases(16, 64, 32, 32),
    *cases(64, 256, 56, 56, devices=("cuda",), dtypes=("float32", "bfloat16")),
]


def bench_group_norm(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
