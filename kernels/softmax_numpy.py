"""Softmax over contiguous rows on the CPU: few passes, each over a chunk of rows that stays in the L2 cache.

What the plain definition loses is fresh temporaries and passes over main memory. Here every pass writes into the
result, row sums are matrix-vector products (a quarter of ``add.reduce``'s time), and the maximum is left out as long
as no row needs it: exp(x) / sum(exp(x)) is accurate where exp neither overflows nor loses what the sum can see, and
the sums tell.

The price: a sum by BLAS is less exact than a pairwise one (in float32 at 1000 columns 4e-7 of y was measured, against
2e-8), so rows longer than _LONG are summed pairwise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import cpu_kernel

_CHUNK = 1 << 16  # elements of a chunk: 256 KB in float32, read and written within a 1 MB L2 cache
_SMALLEST_SUM, _LARGEST_SUM = 1.0, 1e36  # of exp(x): nothing overflowed; what is subnormal stays so after the division


_LONG = 2048  # columns; in longer rows a matrix-vector product adds up too many terms one after another


@lru_cache(maxsize=64)
def _ones(length: int, dtype: np.dtype[Any]) -> Any:
    return np.ones(length, dtype)


def _row_sums(x: Any) -> Any:
    cols = x.shape[1]
    return x.dot(_ones(cols, x.dtype)) if cols <= _LONG else np.add.reduce(x, axis=1)


def softmax_rows(x: Any, y: Any) -> None:
    """``y[r, :] = exp(x[r, :]) / sum(exp(x[r, :]))``, float32 or float64, shape ``(rows, cols)``, into ``y``."""
    rows, cols = x.shape
    if x.size <= _CHUNK:
        with np.errstate(all="ignore"):
            _softmax_chunk(x, y)
        return
    step = max(1, _CHUNK // cols)
    small = True
    with cpu_kernel():
        for start in range(0, rows, step):
            part, out = x[start : start + step], y[start : start + step]
            if small:
                np.exp(part, out)
                scale = _row_sums(out)
                small = bool(scale.min() >= _SMALLEST_SUM and scale.max() <= _LARGEST_SUM)  # false for NaN
            if small:
                np.reciprocal(scale, scale)
                np.multiply(out, scale[:, None], out)
            else:  # and for the chunks that follow, so that at most one is computed twice
                _softmax_chunk(part, out)


def _softmax_chunk(x: Any, y: Any) -> None:
    lowest = float(np.finfo(x.dtype).min)  # a finite start: a row of -inf forms no inf - inf
    largest = np.maximum.reduce(x, axis=1, keepdims=True, initial=lowest)
    np.subtract(x, largest, y)
    np.exp(y, y)
    scale = _row_sums(y)
    np.maximum(scale, 1.0, out=scale)  # the largest logit adds 1, so only rows of -inf have less
    np.divide(y, scale[:, None], y)


def softmax_rows_backward(dy: Any, y: Any, dx: Any) -> None:
    """``dx[r, :] = y[r, :] * (dy[r, :] - y[r, :] · dy[r, :])``, shape ``(rows, cols)``, into ``dx``."""
    rows, cols = y.shape
    if y.size <= _CHUNK:
        with np.errstate(all="ignore"):
            _backward_chunk(dy, y, dx)
        return
    step = max(1, _CHUNK // cols)
    with cpu_kernel():
        for start in range(0, rows, step):
            stop = start + step
            _backward_chunk(dy[start:stop], y[start:stop], dx[start:stop])


def _backward_chunk(dy: Any, y: Any, dx: Any) -> None:
    dot = np.vecdot(dy, y) if y.shape[1] <= _LONG else np.add.reduce(np.multiply(dy, y, dx), axis=1)
    np.subtract(dy, dot[:, None], dx)
    np.multiply(dx, y, dx)
