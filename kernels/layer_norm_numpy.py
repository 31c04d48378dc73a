"""Layer normalisation of contiguous rows on the CPU: few passes, each over a chunk of rows that stays in cache.

Row and column sums are matrix-vector products, and the gradient of the weight uses ``rstd`` as the vector of one, so
that the normalised values are never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import get_num_threads, parallel

_CHUNK = 1 << 17  # elements; two threads need larger chunks, or they only hand the interpreter lock to and fro
_FAR = 1.5  # standard deviations from 0 beyond which a mean has to be exact
_GRAIN = 1 << 18  # elements that are worth waking a thread for
Rows = Callable[[int, int], None]  # does something to the rows start … stop


@lru_cache(maxsize=64)
def ones(length: int, dtype: np.dtype[Any]) -> Any:
    """A vector of ones, kept: a sum is its product with a matrix."""
    return np.ones(length, dtype)


def over_chunks(work: Any, rows: int, cols: int, arrays: int = 4) -> int:
    """Call ``work(chunk, start, stop)`` over chunks of rows, in threads where it pays; returns how many there are.

    Chunks are numbered and do not depend on which thread takes them, so sums over chunks are the same at each call.
    """
    step = rows_in_chunk(rows, cols, arrays)
    count = -(-rows // step)

    def part(first: int, last: int) -> None:
        for chunk in range(first, last):
            work(chunk, chunk * step, min((chunk + 1) * step, rows))

    if count == 1:
        with np.errstate(all="ignore"):
            part(0, 1)
    else:
        parallel(part, count, max(1, _GRAIN // (step * cols)))
    return count


def rows_in_chunk(rows: int, cols: int, arrays: int = 4) -> int:
    """How many rows are worked on at a time: with threads the more, the fewer arrays share the cache."""
    size = _CHUNK if get_num_threads() == 1 else 8 * _CHUNK // arrays
    return max(1, min(rows, size // cols))


def layer_norm_rows(
    x: Any, weight: Any, bias: Any, eps: float, y: Any, mean: Any, rstd: Any, prepare: Rows | None = None
) -> None:
    """``y``, ``mean`` and ``rstd`` of :func:`kernels.layer_norm`, for ``x`` of shape ``(rows, cols)``, in place.

    ``prepare(start, stop)`` is called before the rows ``start … stop`` of ``x`` are read, and may write them.
    """
    rows, cols = x.shape
    scale = 1.0 / cols

    def work(chunk: int, start: int, stop: int) -> None:
        if prepare is not None:
            prepare(start, stop)
        part, out, m, r = x[start:stop], y[start:stop], mean[start:stop], rstd[start:stop]
        np.dot(part, ones(cols, x.dtype), m)
        m *= scale
        np.subtract(part, m[:, None], out)
        np.vecdot(out, out, r)
        reciprocal_root(r, scale, eps)
        far = m * r  # means, in standard deviations
        # A mean by a product errs by some units, which is much where it is far from 0. The first test is the cheap one.
        if not (far.dot(far) <= _FAR * _FAR or abs(far).max() <= _FAR):
            rest = np.dot(out, ones(cols, x.dtype))
            rest *= scale
            rest[abs(far) <= _FAR] = 0.0  # so that a row's result depends on no other row
            np.subtract(out, rest[:, None], out)
            m += rest
            np.vecdot(out, out, r)
            reciprocal_root(r, scale, eps)
        np.multiply(out, r[:, None], out)
        if weight is not None:
            np.multiply(out, weight, out)
        if bias is not None:
            np.add(out, bias, out)

    over_chunks(work, rows, cols, arrays=2)


def reciprocal_root(r: Any, scale: float, eps: float) -> None:
    """``r = 1 / sqrt(r * scale + eps)``, in place."""
    r *= scale
    r += eps
    np.sqrt(r, r)
    np.reciprocal(r, r)


def layer_norm_rows_backward(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any, finish: Rows | None = None
) -> tuple[Any, Any]:
    """``dx`` in place; returns ``dweight`` and ``dbias``. ``finish(start, stop)`` is called once these rows stand."""
    rows, cols = x.shape
    step = rows_in_chunk(rows, cols)
    partial = np.empty((2, -(-rows // step), cols), x.dtype)
    w = ones(cols, x.dtype) if weight is None else weight
    scale = 1.0 / cols

    def work(chunk: int, start: int, stop: int) -> None:
        g, r, out = dy[start:stop], rstd[start:stop], dx[start:stop]
        centred = np.subtract(x[start:stop], mean[start:stop, None])
        np.multiply(g, centred, out)
        np.dot(r, out, partial[0, chunk])
        np.dot(ones(stop - start, x.dtype), g, partial[1, chunk])
        slope = out.dot(w)  # becomes mean(g * n) * rstd, the factor of the centred values
        slope *= scale
        slope *= r
        slope *= r
        shift = g.dot(w)
        shift *= scale
        np.multiply(centred, slope[:, None], centred)
        np.add(centred, shift[:, None], centred)
        if weight is None:
            np.subtract(g, centred, out)
        else:
            np.multiply(g, w, out)
            np.subtract(out, centred, out)
        np.multiply(out, r[:, None], out)
        if finish is not None:
            finish(start, stop)

    over_chunks(work, rows, cols)
    return partial[0].sum(axis=0), partial[1].sum(axis=0)
