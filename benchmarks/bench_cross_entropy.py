"""Cross entropy of class labels from logits, the mean over rows or pixels: forward, and forward with backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, chunks, normal, relative_error, worst


def _losses(x: Any, labels: Any) -> tuple[Any, Any]:
    """-log softmax(x)[label] of each row, and the softmax."""
    shifted = x - x.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=-1, keepdims=True)
    place = (np.arange(len(x)), labels)
    return np.log(total[:, 0]) - shifted[place], e / total


def _rows(x: Any) -> Any:
    """``(N, C, H, W)`` as rows of C."""
    return x if x.ndim == 2 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    x, labels = _rows(inputs[0]), inputs[1].reshape(-1)
    results = (results[0], *map(_rows, results[1:]))
    total, errors = 0.0, []
    for rows in chunks(x, all_rows=True):
        losses, y = _losses(x[rows], labels[rows])
        total += float(losses.sum())
        if len(results) > 1:
            y[np.arange(len(y)), labels[rows]] -= 1.0
            errors.append(relative_error(results[1][rows].astype(np.float64), y / len(x)))
    errors.append(relative_error(np.asarray(results[0], np.float64).reshape(()), np.asarray(total / len(x))))
    return worst(errors)


def lamella(backward: bool) -> Callable[..., Run]:
    def build(x: Any, labels: Any) -> Run:
        import lamella

        logits, targets = lamella.Tensor(x, requires_grad=backward), lamella.Tensor(labels)

        def run() -> tuple[Any, ...]:
            if not backward:
                with lamella.no_grad():
                    return (lamella.layers.cross_entropy(logits, targets).data,)
            logits.grad = None
            loss = lamella.layers.cross_entropy(logits, targets)
            loss.backward()
            return loss.data, logits.grad

        return run

    return build


def torch_contender(backward: bool) -> Callable[..., Run]:
    def build(torch: Any, wrap: Callable[..., Any], x: Any, labels: Any) -> Run:
        timed = wrap(torch.nn.functional.cross_entropy)
        logits = x.detach().requires_grad_(backward)

        def run() -> tuple[Any, ...]:
            if not backward:
                with torch.no_grad():
                    return (timed(logits, labels),)
            logits.grad = None
            loss = timed(logits, labels)
            loss.backward()
            return loss.detach(), logits.grad

        return run

    return build


def cases(
    rows: int, classes: int, *image: int, targets: tuple[str, str] = ("", ""), **options: Any
) -> list[Case]:
    def numbers(rng: Any) -> tuple[Any, ...]:
        return normal(rng, rows, classes, *image), rng.integers(0, classes, (rows, *image))

    shape = (rows, classes, *image)
    size = math.prod(shape)

    return [
        Case(
            name=f"cross-ent. {kind} {'×'.join(map(str, shape))}",
            suite="kernels",
            numbers=numbers,
            contenders={"lamella": lamella(backward), "torch": torch_contender(backward)},
            error=error,
            values=(2 if backward else 1) * size,  # fused: logits are read once, the gradient written once
            family=f"cross-ent. {kind}",
            size=size,
            target=target,
            **options,
        )
        for backward, kind, target in ((False, "f", targets[0]), (True, "f+b", targets[1]))
    ]


CASES = [
    *cases(256, 1000, quick=True),
    *cases(4096, 1000, targets=("W6 cross entropy f", "W6 cross entropy f+b")),
    *cases(16384, 50304, devices=("cuda",), dtypes=("bfloat16",)),
    *cases(8192, 131072, devices=("cuda",), dtypes=("bfloat16",)),
    *cases(8, 21, 512, 512, devices=("cuda",), dtypes=("float32", "bfloat16")),
    *cases(8192, 32000, devices=("cuda",), dtypes=("float32", "bfloat16", "float16")),
]


def bench_cross_entropy(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
