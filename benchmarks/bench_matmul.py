"""Matrix products, single and in stacks, by the backend's door and, on CUDA, by CuPy and the cuBLASLt binding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, chunks, normal, relative_error, worst


def lamella(a: Any, b: Any) -> Run:
    from lamella.backend import backend_of

    backend = backend_of(a)
    return lambda: (backend.matmul(a, b),)


def cublaslt(a: Any, b: Any) -> Run:
    """By the binding, which is not the default before it has run on hardware."""
    from lamella.backend.cupy_backend import CupyBackend

    backend = CupyBackend(use_cublaslt=True)
    return lambda: (backend.matmul(a, b),)


def cupy(a: Any, b: Any) -> Run:
    from lamella.backend import backend_of

    matmul = backend_of(a).xp.matmul
    return lambda: (matmul(a, b),)


def bare_numpy(a: Any, b: Any) -> Run:
    return lambda: (np.matmul(a, b),)


def torch_contender(torch: Any, wrap: Callable[..., Any], a: Any, b: Any) -> Run:
    product = wrap(torch.matmul)
    return lambda: (product(a, b),)


def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    a, b = inputs
    (c,) = results

    def of_rows(rows: Any) -> float:
        right = b if b.ndim == 2 else b[rows]
        return relative_error(c[rows].astype(np.float64), a[rows] @ right)

    return worst([of_rows(rows) for rows in chunks(a, all_rows=False)])


def case(left: tuple[int, ...], right: tuple[int, ...], **options: Any) -> Case:
    *stack, m, k = left
    n = right[-1]
    count = int(np.prod(stack)) if stack else 1
    label = "×".join(map(str, (*stack, m, k, n)))
    return Case(
        name=f"matmul {label}",
        suite="kernels",
        numbers=lambda rng: (normal(rng, *left), normal(rng, *right)),
        contenders={
            "lamella": lamella,
            "torch": torch_contender,
            "numpy": bare_numpy,
            "cublaslt": cublaslt,
            "cupy": cupy,
        },
        error=error,
        values=count * (m * k + m * n) + (count if len(right) > 2 else 1) * k * n,
        operations=2 * count * m * n * k,
        family="matmul",
        size=m * n,
        **options,
    )


SWEEP = ("float32", "tf32", "bfloat16", "float16")
CASES = [
    case((256, 256), (256, 256), quick=True),
    case((512, 512), (512, 512)),
    case((4096, 1024), (1024, 1024)),
    case((32, 128, 64), (32, 64, 128)),
    *(case((size, size), (size, size), devices=("cuda",), dtypes=SWEEP) for size in (1024, 2048, 4096, 8192, 16384)),
    case((8192, 768), (768, 50304), devices=("cuda",), dtypes=("bfloat16",)),
    case((96, 1024, 64), (96, 64, 1024), devices=("cuda",), dtypes=SWEEP),
]


def bench_matmul(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
