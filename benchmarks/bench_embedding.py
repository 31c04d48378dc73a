"""Rows looked up in a table, forward, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, normal, relative_error, worst


def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    indices, weight, *dy = inputs
    expected = [weight[indices]]
    if dy:
        dweight = np.zeros(weight.shape)
        np.add.at(dweight, indices, dy[0])
        expected.append(dweight)
    return worst([relative_error(r.astype(np.float64), e) for r, e in zip(results, expected, strict=True)])


def lamella(backward: bool) -> Callable[..., Run]:
    def build(indices: Any, weight: Any, dy: Any = None) -> Run:
        import lamella

        places, table = lamella.Tensor(indices), lamella.Tensor(weight, requires_grad=backward)

        def run() -> tuple[Any, ...]:
            if not backward:
                with lamella.no_grad():
                    return (lamella.layers.embedding(places, table).data,)
            table.grad = None
            y = lamella.layers.embedding(places, table)
            y.backward(dy)
            return y.data, table.grad

        return run

    return build


def torch_contender(backward: bool) -> Callable[..., Run]:
    def build(torch: Any, wrap: Callable[..., Any], indices: Any, weight: Any, dy: Any = None) -> Run:
        timed = wrap(lambda indices, table: torch.nn.functional.embedding(indices, table))
        table = weight.detach().requires_grad_(backward)

        def run() -> tuple[Any, ...]:
            if not backward:
                with torch.no_grad():
                    return (timed(indices, table),)
            table.grad = None
            y = timed(indices, table)
            y.backward(dy)
            return y.detach(), table.grad

        return run

    return build


def cases(tokens: int, vocabulary: int, width: int, **options: Any) -> list[Case]:
    def numbers(backward: bool) -> Callable[[Any], tuple[Any, ...]]:
        return lambda rng: (
            rng.integers(0, vocabulary, tokens),
            normal(rng, vocabulary, width),
            *((normal(rng, tokens, width),) if backward else ()),
        )

    return [
        Case(
            name=f"embedding {kind} {tokens}×{width}",
            suite="kernels",
            numbers=numbers(backward),
            contenders={"lamella": lamella(backward), "torch": torch_contender(backward)},
            error=error,
            values=2 * tokens * width + backward * (2 * tokens + vocabulary) * width,
            family=f"embedding {kind}",
            size=tokens * width,
            **options,
        )
        for backward, kind in ((False, "f"), (True, "f+b"))
    ]


CASES = [
    *cases(4096, 10000, 256),
    *cases(65536, 50304, 768, devices=("cuda",), dtypes=("float32", "bfloat16")),
]


def bench_embedding(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
