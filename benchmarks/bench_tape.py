"""What the tape adds to NumPy: a chain of products forward and backward, through tensors and by hand.

``python benchmarks/bench_tape.py`` prints the difference for one operation, from interleaved runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import lamella

LENGTH = 50  # operations in the chain
X, Y = np.full((32, 16), 1.001, np.float32), np.full((32, 16), 0.999, np.float32)
ONES = np.ones_like(X)


def by_hand() -> Any:
    """The gradient with respect to Y of ``X * Y * Y * …``, in bare NumPy."""
    x, saved = X, []
    for _ in range(LENGTH):
        saved.append(x)
        x = x * Y
    g, dy = ONES.copy(), None
    for x in reversed(saved):
        step = g * x
        dy = step if dy is None else dy + step
        g = g * Y
    return dy


def with_tape() -> Any:
    """The same gradient through tensors."""
    x, y = lamella.Tensor(X, requires_grad=True), lamella.Tensor(Y, requires_grad=True)
    product = x
    for _ in range(LENGTH):
        product = product * y
    product.backward(ONES)
    return y.grad


def bench_tape(benchmark: Any) -> None:
    np.testing.assert_array_equal(benchmark(with_tape), by_hand())


def bench_by_hand(benchmark: Any) -> None:
    benchmark(by_hand)


def _microseconds(function: Callable[[], Any], repeats: int = 20) -> float:
    start = time.thread_time()
    for _ in range(repeats):
        function()
    return (time.thread_time() - start) / repeats / LENGTH * 1e6


def main(rounds: int = 60) -> None:
    np.testing.assert_array_equal(with_tape(), by_hand())
    pairs = sorted(
        ((with_tape_us - by_hand_us), by_hand_us)
        for with_tape_us, by_hand_us in ((_microseconds(with_tape), _microseconds(by_hand)) for _ in range(rounds))
    )
    added, bare = pairs[rounds // 2]
    print(f"forward + backward of one product of 32 x 16: NumPy {bare:.2f} us, the tape adds {added:.2f} us (median)")
    print(f"quartiles of what it adds: {pairs[rounds // 4][0]:.2f} … {pairs[3 * rounds // 4][0]:.2f} us")


if __name__ == "__main__":
    main()
