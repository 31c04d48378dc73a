"""Average pooling, resizing and padding on the CPU: one axis after another, over the images of a chunk.

An axis is one of three things: sums of windows, which are slices put together; values at other places, which are slices
or a gather; or weighted sums, which are a product with a small dense matrix. A matrix also multiplies zeros with
infinities, so where its result is not finite the sum is taken value by value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .image_axes import Axis, steps, taps, transposed
from .layer_norm_numpy import ones
from .max_pool_numpy import over_images
from .scratch import Scratch

_LONGEST = 512  # of an axis, for a product with a matrix: it multiplies every input with every output
_TOGETHER = 1 << 11  # values that are added up in one product; more lose digits in one chain of additions
_MANY = 8  # inputs of a window from which on its sum is such a product


def forward(x: Any, axes: Sequence[Axis], y: Any) -> None:
    """``y`` of :func:`kernels.resample`; ``x`` is (images, spatial axes …, channels), ``y`` alike."""
    _run(x, y, axes, False)


def backward(dy: Any, axes: Sequence[Axis], dx: Any) -> None:
    """``dx`` from ``dy``."""
    _run(dy, dx, axes, True)


def _size_of_everything(axes: Sequence[Axis]) -> int:
    """How many values an image has, where every axis has one window of all of them; else 0."""
    size = 1
    for axis in axes:
        table = taps(axis)
        whole = axis.out == 1 and table.weight is None and table.most == axis.length and (table.index >= 0).all()
        size *= axis.length if whole else 0
    return size if size <= _TOGETHER else 0


def _run(x: Any, y: Any, axes: Sequence[Axis], back: bool) -> None:
    if size := _size_of_everything(axes):
        _everything(x, y, size, math.prod(1.0 if (d := taps(axis).divisor) is None else d[0] for axis in axes), back)
        return
    left = [i for i, axis in enumerate(axes) if not axis.is_identity]
    if y.size > x.size:
        left.reverse()  # what grows, grows last along the rows that are copied whole

    def work(start: int, stop: int, room: Scratch) -> None:
        value, divided = x[start:stop], None
        for i in left:
            axis, number = axes[i], i + 1
            divisor = taps(axis).divisor
            if back and divisor is not None:
                value = value * _column(1.0 / divisor, value.ndim, number, value.dtype)
            shape = list(value.shape)
            shape[number] = axis.length if back else axis.out
            out = y[start:stop] if i == left[-1] else room(f"axis {i}", tuple(shape), value.dtype)
            _along(value, axis, number, out, back)
            value = out
            if not back and divisor is not None:
                column = _column(divisor, value.ndim, number, value.dtype)
                divided = column if divided is None else divided * column
        if not left:
            y[start:stop] = value
        elif divided is not None:
            np.divide(value, divided, value)

    over_images(work, x if x.size > y.size else y)


def _everything(x: Any, y: Any, size: int, divisor: float, back: bool) -> None:
    """The sum of each image and channel over ``divisor``, or its gradient."""
    channels = x.shape[-1]

    def work(start: int, stop: int, room: Scratch) -> None:
        if back:
            np.multiply(x[start:stop], x.dtype.type(1.0 / divisor), y[start:stop])
            return
        part, out = x[start:stop].reshape(-1, size, channels), y[start:stop].reshape(-1, channels)
        if channels == 1:
            np.dot(part[:, :, 0], ones(size, x.dtype), out[:, 0])
        else:
            np.matmul(ones(size, x.dtype), part, out)
        np.divide(out, x.dtype.type(divisor), out)

    over_images(work, y if back else x)


def _column(values: Any, ndim: int, number: int, dtype: Any) -> Any:
    return values.astype(dtype).reshape(-1, *(1,) * (ndim - 1 - number))


def _along(x: Any, axis: Axis, number: int, y: Any, back: bool) -> None:
    table = taps(axis)
    if table.weight is not None or (table.most > _MANY and max(axis.length, axis.out) <= _LONGEST):
        _weighted(x, axis, number, y, back)
        return
    repeats = _repeats(axis)
    if repeats:
        _repeat(x, repeats, number, y, back)
    elif table.most == 1 and not back and (table.index >= 0).all():
        np.take(x, table.index[:, 0], axis=number, out=y, mode="clip")
    elif back:
        _scatter(x, axis, number, y)
    else:
        _gather(x, axis, number, y)


def _at(number: int, where: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * number, where)


def _gather(x: Any, axis: Axis, number: int, y: Any) -> None:
    """Sums of windows."""
    parts = steps(axis)
    if not (taps(axis).index >= 0).any(axis=1).all():
        y[...] = 0
    for _, new, outs, inputs in parts:
        into = _at(number, outs)
        if new:
            y[into] = x[_at(number, inputs)]
        else:
            y[into] += x[_at(number, inputs)]


def _scatter(dy: Any, axis: Axis, number: int, dx: Any) -> None:
    """The gradient of sums of windows."""
    index = transposed(axis)[0]
    apart = index.shape[1] == 1
    if not apart or not (index >= 0).all():
        dx[...] = 0
    for _, _, outs, inputs in steps(axis):
        if apart:
            dx[_at(number, inputs)] = dy[_at(number, outs)]
        else:
            dx[_at(number, inputs)] += dy[_at(number, outs)]


@lru_cache(maxsize=512)
def _repeats(axis: Axis) -> int:
    """How often each input stands in turn, where the outputs are that and nothing else; else 0."""
    times, left = divmod(axis.out, max(1, axis.length))
    index = taps(axis).index
    if left or times < 2 or index.shape[1] > 1 or not (index[:, 0] == np.arange(axis.out) // times).all():
        return 0
    return times


def _repeat(x: Any, times: int, number: int, y: Any, back: bool) -> None:
    for phase in range(times):
        if not back:
            y[_at(number, slice(phase, None, times))] = x
        elif phase == 0:
            y[...] = x[_at(number, slice(0, None, times))]
        else:
            y += x[_at(number, slice(phase, None, times))]


# -- weighted sums -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def _matrix(axis: Axis, back: bool, dtype: Any) -> Any:
    """Outputs by inputs, or the transposed of that."""
    table = taps(axis)
    matrix = np.zeros((axis.out, axis.length))
    outs, which = np.nonzero(table.index >= 0)
    weight = 1.0 if table.weight is None else table.weight[outs, which]
    np.add.at(matrix, (outs, table.index[outs, which]), weight)
    return np.ascontiguousarray(matrix.T if back else matrix).astype(dtype)


def _weighted(x: Any, axis: Axis, number: int, y: Any, back: bool) -> None:
    if axis.length <= _LONGEST and axis.out <= _LONGEST:
        matrix = _matrix(axis, back, x.dtype)
        before, after = int(np.prod(x.shape[:number])), int(np.prod(x.shape[number + 1 :]))
        cols = matrix.shape[1]
        if after == 1:
            result = np.dot(x.reshape(before, cols), matrix.T)
        else:
            result = np.matmul(matrix, x.reshape(before, cols, after))
        flat = result.reshape(-1)
        if np.isfinite(np.dot(flat, np.zeros(flat.size, flat.dtype))):
            y[...] = result.reshape(y.shape)
            return
    index, weight = taps(axis).index, taps(axis).weight
    if back:
        index, _, weight = transposed(axis)
        if taps(axis).divisor is not None:  # dy has been divided
            weight = np.ones(index.shape)
    elif weight is None:
        weight = np.ones(index.shape)
    y[...] = 0
    for k in range(index.shape[1]):
        here = np.flatnonzero(index[:, k] >= 0)
        part = np.take(x, index[here, k], axis=number) * _column(weight[here, k], x.ndim, number, x.dtype)
        if len(here) == len(index):
            y += part
        else:
            y[(*(slice(None),) * number, here)] += part
