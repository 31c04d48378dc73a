"""One step of AdamW over many parameters whose gradients are there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, normal, relative_error, worst

LR, DECAY, STEPS = 1e-3, 0.01, 2
_SHOWN = 64  # values of the first and of the last parameter that are judged


def _shown(arrays: Any, copied: Callable[[Any], Any]) -> tuple[Any, ...]:
    return tuple(copied(array.reshape(-1)[:_SHOWN]) for array in (arrays[0], arrays[-1]))


def lamella(*arrays: Any) -> Run:
    import lamella

    half = len(arrays) // 2
    parameters = [lamella.Parameter(array) for array in arrays[:half]]
    optimizer = lamella.training.AdamW(parameters, lr=LR, weight_decay=DECAY)
    for parameter, gradient in zip(parameters, arrays[half:], strict=True):
        parameter.grad = gradient

    def run() -> tuple[Any, ...]:
        optimizer.step()
        return _shown([parameters[0].data, parameters[-1].data], lambda part: part.copy())

    return run


def torch_contender(**options: Any) -> Callable[..., Run]:
    def build(torch: Any, wrap: Callable[..., Any], *tensors: Any) -> Run:
        half = len(tensors) // 2
        parameters = [tensor.detach().clone().requires_grad_() for tensor in tensors[:half]]
        optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY, **options)
        for parameter, gradient in zip(parameters, tensors[half:], strict=True):
            parameter.grad = gradient
        step = wrap(optimizer.step)

        def run() -> tuple[Any, ...]:
            step()
            return _shown(parameters, lambda part: part.detach().clone())

        return run

    return build


def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    """Judges the values shown after each step by the definition (Loshchilov and Hutter 2019, algorithm 2)."""
    half = len(inputs) // 2
    errors = []
    for which, index in enumerate((0, half - 1)):
        p, g = (inputs[i].reshape(-1)[:_SHOWN].astype(np.float64) for i in (index, half + index))
        m, v = np.zeros_like(p), np.zeros_like(p)
        for step in range(1, STEPS + 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            p = p - LR * (DECAY * p + m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8))
            errors.append(relative_error(results[2 * (step - 1) + which].astype(np.float64), p))
    return worst(errors)


def case(name: str, shapes: list[tuple[int, ...]], **options: Any) -> Case:
    size = sum(map(math.prod, shapes))

    def numbers(rng: Any) -> tuple[Any, ...]:
        return tuple(normal(rng, *shape, scale=0.1) for shape in (*shapes, *shapes))

    return Case(
        name=f"AdamW step {name}",
        suite="kernels",
        numbers=numbers,
        contenders={
            "lamella": lamella,
            "torch": torch_contender(),
            "torch fused": torch_contender(fused=True),
            "torch foreach": torch_contender(foreach=True),
        },
        error=error,
        values=7 * size,  # reads parameter, gradient and two moments, writes all but the gradient
        steps=STEPS,
        family="AdamW step",
        size=size,
        **options,
    )


def gpt2() -> list[tuple[int, ...]]:
    """The 148 parameters of GPT-2's smallest model."""
    d = 768
    block = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *(shape for _ in range(12) for shape in block), (d,), (d,)]


CASES = [
    case("0.5M, 6 arrays", [(512, 784), (512,), (256, 512), (256,), (10, 256), (10,)], quick=True),
    case("124M, 148 arrays", gpt2(), devices=("cuda",)),
]


def bench_adam(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
