"""Cross entropy of a linear layer's output, whose logits never exist as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, normal, relative_error, worst


def error(results: tuple[Any, ...], inputs: tuple[Any, ...], rows_at_a_time: int = 512) -> float:
    """Judges the loss and both gradients, some rows at a time."""
    x, weight, labels = inputs
    total, dx, dweight = 0.0, np.empty(x.shape), np.zeros(weight.shape)
    for start in range(0, len(x), rows_at_a_time):
        rows = slice(start, start + rows_at_a_time)
        logits = x[rows] @ weight.T
        logits -= logits.max(axis=1, keepdims=True)
        e = np.exp(logits)
        sums = e.sum(axis=1)
        place = (np.arange(len(logits)), labels[rows])
        total += float((np.log(sums) - logits[place]).sum())
        d = e / sums[:, None]
        d[place] -= 1
        dx[rows] = d @ weight / len(x)
        dweight += d.T @ x[rows] / len(x)
    expected = [np.asarray(total / len(x)), dx, dweight]
    return worst(
        [relative_error(np.asarray(r, np.float64).reshape(e.shape), e) for r, e in zip(results, expected, strict=True)]
    )


def lamella(x: Any, weight: Any, labels: Any) -> Run:
    import lamella

    inputs, weights = (lamella.Tensor(array, requires_grad=True) for array in (x, weight))
    targets = lamella.Tensor(labels)

    def run() -> tuple[Any, ...]:
        inputs.grad = weights.grad = None
        loss = lamella.layers.linear_cross_entropy(inputs, weights, targets)
        loss.backward()
        return loss.data, inputs.grad, weights.grad

    return run


def torch_contender(torch: Any, wrap: Callable[..., Any], x: Any, weight: Any, labels: Any) -> Run:
    functional = torch.nn.functional
    timed = wrap(lambda x, weight, labels: functional.cross_entropy(functional.linear(x, weight), labels))
    inputs, weights = x.detach().requires_grad_(), weight.detach().requires_grad_()

    def run() -> tuple[Any, ...]:
        inputs.grad = weights.grad = None
        loss = timed(inputs, weights, labels)
        loss.backward()
        return loss.detach(), inputs.grad, weights.grad

    return run


def case(rows: int, width: int, classes: int, **options: Any) -> Case:
    def numbers(rng: Any) -> tuple[Any, ...]:
        return normal(rng, rows, width), normal(rng, classes, width, scale=width**-0.5), rng.integers(0, classes, rows)

    return Case(
        name=f"lin+CE f+b {rows}×{width}×{classes}",
        suite="kernels",
        numbers=numbers,
        contenders={"lamella": lamella, "torch": torch_contender},
        error=error,
        values=2 * (rows * width + classes * width),
        operations=6 * rows * width * classes,
        needs=("layers.linear_cross_entropy",),
        bound=256.0,
        **options,
    )


CASES = [
    case(512, 256, 4096),
    case(8192, 768, 50304, devices=("cuda",), dtypes=("bfloat16",)),
]


def bench_linear_cross_entropy(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
