"""Scaled dot-product attention forward, and forward with backward, full and causal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, normal, relative_error, worst

_BLOCK = 1 << 22  # scores that the judge holds at a time
TORCH_BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")


def lamella(causal: bool, backward: bool) -> Callable[..., Run]:
    def build(q: Any, k: Any, v: Any, dy: Any = None) -> Run:
        from lamella import kernels

        def forward() -> tuple[Any, ...]:
            return (kernels.attention(q, k, v, causal=causal),)

        def both() -> tuple[Any, ...]:
            out, lse = kernels.attention(q, k, v, causal=causal, return_lse=True)
            return (out, *kernels.attention_backward(dy, q, k, v, out, lse, causal=causal)[:3])

        return both if backward else forward

    return build


def hopper(causal: bool, backward: bool) -> Callable[..., Run]:
    """By the kernels for compute capability 9.0 alone, which are not the default before they have run on hardware."""

    def build(*arrays: Any) -> Run:
        from lamella.backend import backend_of

        backend, run = backend_of(arrays[0]), lamella(causal, backward)(*arrays)

        def switched() -> tuple[Any, ...]:
            before, backend.uses_hopper = backend.uses_hopper, True
            try:
                return run()
            finally:
                backend.uses_hopper = before

        return switched

    return build


def torch_contender(causal: bool, backward: bool, backend: str = "") -> Callable[..., Run]:
    """PyTorch's attention, by its own choice of a backend or by the one that is named."""

    def build(torch: Any, wrap: Callable[..., Any], q: Any, k: Any, v: Any, dy: Any = None) -> Run:
        attention = torch.nn.functional.scaled_dot_product_attention
        timed = wrap(lambda q, k, v: attention(q, k, v, is_causal=causal))
        inputs = [tensor.detach().requires_grad_(backward) for tensor in (q, k, v)]

        def run() -> tuple[Any, ...]:
            if not backward:
                return (timed(*inputs),)
            for tensor in inputs:
                tensor.grad = None
            y = timed(*inputs)
            y.backward(dy)
            return (y.detach(), *(tensor.grad for tensor in inputs))

        if not backend:
            return run
        forced = torch.nn.attention

        def run_forced() -> tuple[Any, ...]:
            with forced.sdpa_kernel([getattr(forced.SDPBackend, backend)]):
                return run()

        return run_forced

    return build


def _weights(q: Any, k: Any, causal: bool) -> Iterator[tuple[slice, Any]]:
    """The softmax of some queries' scores at a time."""
    step = max(1, _BLOCK // len(k))
    for start in range(0, len(q), step):
        rows = slice(start, min(start + step, len(q)))
        scores = q[rows] @ k.T / math.sqrt(q.shape[-1])
        if causal:
            scores[np.arange(start, rows.stop)[:, None] < np.arange(len(k))] = -np.inf
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        yield rows, e / e.sum(axis=-1, keepdims=True)


def judge(causal: bool) -> Callable[..., float]:
    """Judges the first and the last head."""

    def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
        errors = []
        for place in ((0, 0), (-1, -1)):
            q, k, v, *dy = (array[place].astype(np.float64) for array in inputs)
            expected = [np.zeros_like(array) for array in (q, q, k, v)]
            out, dq, dk, dv = expected
            for rows, p in _weights(q, k, causal):
                out[rows] = p @ v
                if len(results) > 1:
                    dp = dy[0][rows] @ v.T
                    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / math.sqrt(q.shape[-1])
                    dq[rows] = ds @ k
                    dk += ds.T @ q[rows]
                    dv += p.T @ dy[0][rows]
            errors += [
                relative_error(result[place].astype(np.float64), e)
                for result, e in zip(results, expected, strict=False)
            ]
        return worst(errors)

    return error


def cases(
    batch: int, heads: int, length: int, width: int, causal: bool, targets: tuple[str, str] = ("", ""), **options: Any
) -> list[Case]:
    shape = (batch, heads, length, width)
    products = 4 * batch * heads * length * length * width // (2 if causal else 1)
    word = "causal att." if causal else "attention"
    has_hopper = set(options.get("dtypes", ())) == {"bfloat16", "float16"}

    def numbers(count: int) -> Callable[[Any], tuple[Any, ...]]:
        return lambda rng: tuple(normal(rng, *shape) for _ in range(count))

    return [
        Case(
            name=f"{word} {kind} T{length} D{width}",
            suite="kernels",
            numbers=numbers(4 if backward else 3),
            contenders={
                "lamella": lamella(causal, backward),
                **({"hopper": hopper(causal, backward)} if has_hopper else {}),
                "torch": torch_contender(causal, backward),
                **{f"torch {name}": torch_contender(causal, backward, name) for name in TORCH_BACKENDS},
            },
            error=judge(causal),
            values=math.prod(shape) * (9 if backward else 4),
            operations=products * 7 // 2 if backward else products,  # backward: five products for two
            family=f"{word} {kind} D{width}",
            size=length,
            target=target,
            **options,
        )
        for backward, kind, target in ((False, "f", targets[0]), (True, "f+b", targets[1]))
    ]


CASES = [
    *cases(4, 8, 1024, 64, causal=False, targets=("W7 attention f", "W7 attention f+b")),
    *cases(4, 8, 1024, 64, causal=True, targets=("", "W7 causal attention f+b")),
    *cases(2, 4, 256, 64, causal=True, quick=True),
    *(
        case
        for width in (64, 128)
        for length in (2048, 4096, 8192, 16384)
        for causal in (False, True)
        for case in cases(
            16384 // length, 2048 // width, length, width, causal, devices=("cuda",), dtypes=("bfloat16", "float16")
        )
    ),
    *(
        case
        for length in (2048, 8192)
        for case in cases(16384 // length, 16, length, 128, False, devices=("cuda",), dtypes=("float32", "tf32"))
    ),
]


def bench_attention(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
