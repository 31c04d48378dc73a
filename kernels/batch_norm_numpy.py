"""Batch normalisation on the CPU, a chunk at a time; see ``layer_norm_numpy.py``.

Contiguous images are rows of one channel each (a plane), channels-last images rows of all channels (a pixel). Rows that
are short are put beside each other, so that an operation on a chunk has long inner loops; what multiplies a row is
repeated to match.

Sums of squares are taken of the values themselves where the variance then keeps its digits (_SAFE), else of their
deviations from the mean, which is one pass more. Partial sums are added up in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import parallel
from .layer_norm_numpy import ones
from .scratch import SCRATCH

_CHUNK = 1 << 18  # elements worked on at a time
_GRAIN = 1 << 18  # elements that are worth waking a thread for
_WIDE = 1 << 11  # elements of a row, where short rows are put together
_PLANE = 128  # values in a plane that are worth an operation of their own
_SAFE = 0.2  # of mean², the least variance that is taken from a sum of squares


@lru_cache(maxsize=8)
def _same(value: float, length: int, dtype: Any) -> Any:
    """An array of one value, kept: with a number in its place a maximum takes five times as long."""
    return np.full(length, value, dtype)


class _Layout:
    """How the arrays of one call are cut into matrices.

    Args:
        shape: ``(pixels, C)``, or ``(N, C, values of a plane)``.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.channels = shape[1]
        self.size = int(np.prod(shape))
        inner = shape[2] if len(shape) == 3 else 1
        self.by_plane = inner >= _PLANE
        self.inner = inner
        if self.by_plane:
            self.pieces = [(0, shape[0] * shape[1], inner)]
        else:
            rows, cols = shape[0], shape[1] * inner
            together = max(1, min(rows, _WIDE // cols))
            whole = rows // together
            self.pieces = [(0, whole, together * cols)]
            if left := rows - whole * together:
                self.pieces.append((whole * together * cols, 1, left * cols))

    @property
    def largest(self) -> int:
        """No chunk has more elements."""
        return max(_CHUNK, *(cols for _, _, cols in self.pieces))

    def spread(self, coefficients: Any, dtype: Any) -> Any:
        """A value for each channel, repeated as a chunk needs it."""
        coefficients = coefficients.astype(dtype, copy=False)
        if self.by_plane:
            return np.tile(coefficients, self.pieces[0][1] // self.channels)
        return np.tile(np.repeat(coefficients, self.inner), -(-self.pieces[0][2] // (self.channels * self.inner)))

    def chunks(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(number, offset of the first element, row of the piece, rows, columns) of each chunk."""
        number = 0
        for offset, rows, cols in self.pieces:
            step = max(1, _CHUNK // cols)
            for row in range(0, rows, step):
                count = min(step, rows - row)
                yield number, offset + row * cols, row, count, cols
                number += 1

    def run(self, work: Callable[..., None], dtype: Any) -> None:
        """``work(number, cut, of, room)`` for each chunk, in threads.

        ``cut`` takes the chunk's matrix from an array, ``of`` its factor from what :meth:`spread` gave; ``room`` is
        scratch memory of the matrix's shape.
        """
        chunks = list(self.chunks())

        def part(first: int, last: int) -> None:
            scratch = SCRATCH("batch_norm", (self.largest,), dtype)
            for number, start, row, count, cols in chunks[first:last]:
                stop = start + count * cols

                def cut(array: Any, start: int = start, stop: int = stop, shape: Any = (count, cols)) -> Any:
                    return array[start:stop].reshape(shape)

                def of(spread: Any, row: int = row, count: int = count, cols: int = cols) -> Any:
                    return spread[row : row + count, None] if self.by_plane else spread[:cols]

                work(number, cut, of, cut(scratch, 0, stop - start))

        parallel(part, len(chunks), _GRAIN // _CHUNK)

    def count(self) -> int:
        return sum(-(-rows // max(1, _CHUNK // cols)) for _, rows, cols in self.pieces)

    # -- sums ------------------------------------------------------------------------------------------------------
    def new_sums(self, dtype: Any) -> Any:
        """Memory for the sums of each row (planes), or of the columns of each chunk."""
        if self.by_plane:
            return np.empty(self.pieces[0][1], dtype)
        return np.zeros((self.count(), self.pieces[0][2]), dtype)

    def add_up(self, sums: Any) -> Any:
        """The sums of each channel, float64."""
        if self.by_plane:
            return sums.reshape(-1, self.channels).sum(axis=0, dtype=np.float64)
        columns = sums.sum(axis=0, dtype=np.float64)  # every piece begins with the first channel
        return columns.reshape(-1, self.channels, self.inner).sum(axis=(0, 2))

    def sum_into(self, sums: Any, number: int, matrix: Any, of: Any) -> None:
        if self.by_plane:
            np.dot(matrix, ones(matrix.shape[1], matrix.dtype), of(sums)[:, 0])
        else:
            np.dot(ones(matrix.shape[0], matrix.dtype), matrix, sums[number, : matrix.shape[1]])

    def sum_products_into(self, sums: Any, number: int, a: Any, b: Any, of: Any, room: Any) -> None:
        if self.by_plane:
            np.vecdot(a, b, of(sums)[:, 0])
        else:
            np.multiply(a, b, room)
            self.sum_into(sums, number, room, of)


def _moments(layout: _Layout, x: Any) -> tuple[Any, Any, bool]:
    """Mean and biased variance of each channel in float64, and whether the mean is small beside the deviation."""
    first, second = layout.new_sums(x.dtype), layout.new_sums(x.dtype)

    def sums(number: int, cut: Any, of: Any, room: Any) -> None:
        part = cut(x)
        layout.sum_into(first, number, part, of)
        layout.sum_products_into(second, number, part, part, of, room)

    layout.run(sums, x.dtype)
    scale = layout.channels / layout.size
    with np.errstate(all="ignore"):
        mean = layout.add_up(first) * scale
        var = layout.add_up(second) * scale - mean * mean
        small = bool((var >= _SAFE * mean * mean).all())
    if small:
        return mean, var, True
    centre = layout.spread(mean, x.dtype)

    def deviations(number: int, cut: Any, of: Any, room: Any) -> None:
        np.subtract(cut(x), of(centre), room)
        layout.sum_into(first, number, room, of)
        layout.sum_products_into(second, number, room, room, of, room)

    layout.run(deviations, x.dtype)
    with np.errstate(all="ignore"):
        rest = layout.add_up(first) * scale  # what rounding the mean to the dtype left out
        var = layout.add_up(second) * scale - rest * rest
        return mean, np.maximum(var, 0.0), False


def _mean_is_small(mean: Any, var: Any) -> bool:
    return bool((var >= _SAFE * mean * mean).all())


def forward(
    x: Any, residual: Any, y: Any, weight: Any, bias: Any, eps: float, mean: Any, var: Any, training: bool, relu: bool
) -> None:
    """``y`` of :func:`kernels.batch_norm` in place, and in training ``mean`` and ``var``."""
    layout, dtype = _Layout(x.shape), x.dtype
    x, y, residual = (None if a is None else a.reshape(-1) for a in (x, y, residual))
    if training:
        wide_mean, wide_var, small = _moments(layout, x)
        mean[...], var[...] = wide_mean, wide_var
    else:
        wide_mean, wide_var = mean.astype(np.float64), var.astype(np.float64)
        small = _mean_is_small(wide_mean, wide_var)
    with np.errstate(all="ignore"):
        scale = 1.0 / np.sqrt(wide_var + eps)
        scale = scale if weight is None else scale * weight
        shift = np.zeros_like(scale) if bias is None else bias.astype(np.float64)
        shift = shift - (wide_mean if small else wide_mean - wide_mean.astype(dtype)) * scale
    scale, shift, centre = (layout.spread(a, dtype) for a in (scale, shift, wide_mean))
    zeros = _same(0.0, layout.largest, dtype) if relu else None

    def work(number: int, cut: Any, of: Any, room: Any) -> None:
        part, out = cut(x), cut(y)
        if small:
            np.multiply(part, of(scale), out)
        else:
            np.subtract(part, of(centre), out)
            np.multiply(out, of(scale), out)
        np.add(out, of(shift), out)
        if residual is not None:
            np.add(out, cut(residual), out)
        if zeros is not None:
            np.maximum(out, zeros[: out.size].reshape(out.shape), out=out)

    layout.run(work, dtype)


def backward(
    dy: Any, x: Any, y: Any, dx: Any, dresidual: Any, mean: Any, var: Any, weight: Any, eps: float, frozen: bool
) -> tuple[Any, Any]:
    """``dx`` in place, and ``dresidual`` where there is one; returns ``dweight`` and ``dbias``."""
    layout, dtype = _Layout(x.shape), x.dtype
    dy, x, y, dx, dresidual = (None if a is None else a.reshape(-1) for a in (dy, x, y, dx, dresidual))
    wide_mean, wide_var = mean.astype(np.float64), var.astype(np.float64)
    small = _mean_is_small(wide_mean, wide_var)
    centre = layout.spread(wide_mean, dtype)
    first, second = layout.new_sums(dtype), layout.new_sums(dtype)
    ceiling = _same(1.0, layout.largest, dtype)
    masked = dx if dresidual is None else dresidual  # where g is kept until it is used

    def sums(number: int, cut: Any, of: Any, room: Any) -> None:
        g, part = cut(dy), cut(x)
        if y is not None:
            np.minimum(cut(y), ceiling[: room.size].reshape(room.shape), out=room)
            np.ceil(room, room)  # 1 where y > 0, and 0 where it is 0: cheaper than to convert booleans
            g = np.multiply(g, room, cut(masked))
        layout.sum_into(first, number, g, of)
        if not small:
            part = np.subtract(part, of(centre), room)
        layout.sum_products_into(second, number, g, part, of, room)

    layout.run(sums, dtype)
    with np.errstate(all="ignore"):
        rstd = 1.0 / np.sqrt(wide_var + eps)
        dbias, products = layout.add_up(first), layout.add_up(second)
        dweight = (products - wide_mean * dbias if small else products) * rstd
        scale = rstd if weight is None else rstd * weight
        slope = -scale * dweight * rstd * (layout.channels / layout.size)
        shift = -scale * dbias * (layout.channels / layout.size)
        if small:
            shift = shift - slope * wide_mean
    scale, slope, shift = (layout.spread(a, dtype) for a in (scale, slope, shift))
    g_all = dy if y is None else masked

    def values(number: int, cut: Any, of: Any, room: Any) -> None:
        out = np.multiply(cut(g_all), of(scale), cut(dx))
        if frozen:
            return
        part = cut(x)
        if small:
            np.multiply(part, of(slope), room)
        else:
            np.subtract(part, of(centre), room)
            np.multiply(room, of(slope), room)
        np.add(out, room, out)
        np.add(out, of(shift), out)

    layout.run(values, dtype)
    return dweight.astype(dtype), dbias.astype(dtype)
