"""A basic block of ResNet-18, forward and backward: two convolutions with batch normalisation, and the input added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamella.benchmarks.case import Case, normal
from lamella.benchmarks.model import Model, model_case


def block(channels: int) -> Model:
    def build(nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    weight = (channels, channels, 3, 3)
    return Model(
        build,
        lambda nn, module, x: nn.ReLU()(module(x) + x),
        {
            "0.weight": weight,
            "1.weight": (channels,),
            "1.bias": (channels,),
            "3.weight": weight,
            "4.weight": (channels,),
            "4.bias": (channels,),
        },
        training=False,
    )


def case(batch: int, channels: int, size: int, **options: Any) -> Case:
    shape = (batch, channels, size, size)
    return model_case(
        f"ResNet block {batch}×{channels} {size}²",
        block(channels),
        lambda rng: (normal(rng, *shape), normal(rng, *shape)),
        2 * 2 * batch * size * size * channels * channels * 9,
        images=True,
        needs=("layers.Conv2d", "layers.BatchNorm2d"),
        **options,
    )


CASES = [
    case(16, 64, 32, target="W4a ResNet block"),
    case(128, 64, 56, devices=("cuda",), dtypes=("float32", "tf32", "bfloat16")),
]


def bench_resnet(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
