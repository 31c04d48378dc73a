"""A training step of a LeNet-like network on images of 28 × 28 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamella.benchmarks.case import Case, normal
from lamella.benchmarks.model import Model, model_case


def build(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 10),
    )


LENET = Model(
    build,
    lambda nn, module, x: module(x),
    {
        "0.weight": (32, 1, 5, 5),
        "0.bias": (32,),
        "3.weight": (64, 32, 5, 5),
        "3.bias": (64,),
        "7.weight": (10, 3136),
        "7.bias": (10,),
    },
    training=True,
)


def case(batch: int, **options: Any) -> Case:
    return model_case(
        f"LeNet step, batch {batch}",
        LENET,
        lambda rng: (normal(rng, batch, 1, 28, 28), rng.integers(0, 10, batch)),
        2 * batch * (28 * 28 * 32 * 25 + 14 * 14 * 64 * 32 * 25 + 3136 * 10),
        images=True,
        needs=("layers.Conv2d", "layers.MaxPool2d"),
        **options,
    )


CASES = [
    case(64, target="W3 LeNet"),
    case(512, devices=("cuda",), dtypes=("float32", "tf32")),
]


def bench_lenet(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
