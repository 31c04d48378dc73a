"""Softmax and log-softmax over contiguous rows on the CPU: few passes, each over rows that stay in the L2 cache.

What the plain definition loses is fresh temporaries and passes over main memory. Here every pass writes into the
result, row sums are matrix-vector products (a quarter of ``add.reduce``'s time), and the maximum is left out as long
as no row needs it: exp(x) / sum(exp(x)) is accurate where exp neither overflows nor loses what the sum can see, and
the sums tell.

The price: a sum by BLAS is less exact than a pairwise one (in float32 at 1000 columns 4e-7 of y was measured, against
2e-8), so rows longer than _LONG are summed pairwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import get_num_threads, parallel

_CHUNK = 1 << 17  # elements of a chunk: 512 KB in float32, written and read again within a 1 MB L2 cache
_SHARED = 1 << 18  # where threads share the work: in smaller chunks they only hand the interpreter lock to and fro
_GRAIN = 1 << 18  # elements that are worth waking a thread for
_SMALLEST_SUM, _LARGEST_SUM = 1.0, 1e36  # of exp(x): nothing overflowed; what is subnormal stays so after the division
_LARGEST_FOR_LOG = 1e6  # beyond, the logarithm has fewer digits behind the point than that of shifted logits
_LONG = 2048  # columns; in longer rows a matrix-vector product adds up too many terms one after another


@lru_cache(maxsize=64)
def _ones(length: int, dtype: np.dtype[Any]) -> Any:
    return np.ones(length, dtype)


def _row_sums(x: Any) -> Any:
    cols = x.shape[1]
    return x.dot(_ones(cols, x.dtype)) if cols <= _LONG else np.add.reduce(x, axis=1)


def _over_chunks(work: Callable[[int, int, bool], bool], rows: int, cols: int) -> None:
    """``work(start, stop, shift)`` over chunks of rows, on every thread.

    ``work`` answers whether a maximum had to be subtracted; the chunks that follow in its thread are told.
    """
    if rows * cols <= _CHUNK:
        with np.errstate(all="ignore"):
            work(0, rows, True)
        return
    step = max(1, (_CHUNK if get_num_threads() == 1 else _SHARED) // cols)

    def part(first: int, last: int) -> None:
        shift = False
        for start in range(first, last, step):
            shift = work(start, min(start + step, last), shift)

    parallel(part, rows, max(1, _GRAIN // cols))


def softmax_rows(x: Any, y: Any) -> None:
    """``y[r, :] = exp(x[r, :]) / sum(exp(x[r, :]))``, float32 or float64, shape ``(rows, cols)``, into ``y``."""

    def work(start: int, stop: int, shift: bool) -> bool:
        part, out = x[start:stop], y[start:stop]
        if not shift:
            np.exp(part, out)
            scale = _row_sums(out)
            shift = not _are_safe(scale, _LARGEST_SUM)
        if shift:
            _subtract_maximum(part, out)
            np.exp(out, out)
            scale = _row_sums(out)
            np.maximum(scale, 1.0, out=scale)  # the largest logit adds 1, so only rows of -inf have less
            np.divide(out, scale[:, None], out)
            return True
        np.reciprocal(scale, scale)
        np.multiply(out, scale[:, None], out)
        return False

    _over_chunks(work, *x.shape)


def _are_safe(sums: Any, largest: float) -> bool:
    return bool(sums.min() >= _SMALLEST_SUM and sums.max() <= largest)  # false for NaN


def _subtract_maximum(x: Any, y: Any) -> None:
    """``y = x - max(x)`` in each row."""
    lowest = float(np.finfo(x.dtype).min)  # a finite start: a row of -inf forms no inf - inf
    largest = np.maximum.reduce(x, axis=1, keepdims=True, initial=lowest)
    np.subtract(x, largest, y)


def softmax_rows_backward(dy: Any, y: Any, dx: Any) -> None:
    """``dx[r, :] = y[r, :] * (dy[r, :] - y[r, :] · dy[r, :])``, shape ``(rows, cols)``, into ``dx``."""

    def work(start: int, stop: int, shift: bool) -> bool:
        g, p, out = dy[start:stop], y[start:stop], dx[start:stop]
        dot = np.vecdot(g, p) if p.shape[1] <= _LONG else np.add.reduce(np.multiply(g, p, out), axis=1)
        np.subtract(g, dot[:, None], out)
        np.multiply(out, p, out)
        return shift

    _over_chunks(work, *y.shape)


def log_softmax_rows(x: Any, y: Any) -> None:
    """``y[r, :] = x[r, :] - log(sum(exp(x[r, :])))``, float32 or float64, shape ``(rows, cols)``, into ``y``."""

    def work(start: int, stop: int, shift: bool) -> bool:
        part, out = x[start:stop], y[start:stop]
        if not shift:
            np.exp(part, out)
            total = _row_sums(out)
            shift = not _are_safe(total, _LARGEST_FOR_LOG)
        if shift:
            _subtract_maximum(part, out)
            total = _row_sums(np.exp(out))
            np.maximum(total, 1.0, out=total)  # likewise
            np.log(total, total)
            np.subtract(out, total[:, None], out)
            return True
        np.log(total, total)
        np.subtract(part, total[:, None], out)
        return False

    _over_chunks(work, *x.shape)


def log_softmax_rows_backward(dy: Any, y: Any, dx: Any) -> None:
    """``dx[r, :] = dy[r, :] - exp(y[r, :]) * sum(dy[r, :])``, shape ``(rows, cols)``, into ``dx``."""

    def work(start: int, stop: int, shift: bool) -> bool:
        g, out = dy[start:stop], dx[start:stop]
        np.exp(y[start:stop], out)
        np.multiply(out, _row_sums(g)[:, None], out)
        np.subtract(g, out, out)
        return shift

    _over_chunks(work, *y.shape)
