"""Max pooling on the CPU: one axis after another, over all images of a chunk at a time.

The values are maxima of slices. Of equal values the first in row-major order wins: along a later axis a candidate that
is equal wins where it stands earlier on the axes before. Which input won is its position in the window, a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import parallel
from .image_axes import Axis, steps, taps, transposed, window_size

_CHUNK = 1 << 16  # elements of the input that are worked on at a time
_GRAIN = 1 << 18  # elements that are worth waking a thread for

def _at(axis: int, where: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, where)


def forward(x: Any, axes: Sequence[Axis], y: Any, positions: Any) -> None:
    """``y`` and, unless it is None, ``positions``; ``x`` is (images, spatial axes …, channels)."""
    over_images(lambda start, stop: _forward(x[start:stop], axes, y[start:stop], _part(positions, start, stop)), x)


def _part(array: Any, start: int, stop: int) -> Any:
    return None if array is None else array[start:stop]


def over_images(work: Any, x: Any) -> None:
    """``work(start, stop)`` over chunks of images that stay in cache, in threads where it pays."""
    each = max(1, x[:1].size)
    step = max(1, _CHUNK // each)

    def part(first: int, last: int) -> None:
        for chunk in range(first, last):
            work(chunk * step, min((chunk + 1) * step, len(x)))

    parallel(part, -(-len(x) // step), max(1, _GRAIN // (each * step)))


def _forward(x: Any, axes: Sequence[Axis], y: Any, positions: Any) -> None:
    value, position = _stages(x, axes, y, positions is not None, range(len(axes)), False)
    if positions is not None:
        if not np.isfinite(np.dot(value.reshape(-1), np.zeros(value.size, value.dtype))) and np.isnan(value).any():
            # With a NaN, the last one of a window wins: along the last axis first, later candidates always win a tie.
            value, position = _stages(x, axes, y, True, range(len(axes) - 1, -1, -1), True)
        positions[...] = position
        for number, axis in enumerate(axes, start=1):
            blind = np.flatnonzero((taps(axis).index < 0).all(axis=1))  # windows that see only padding
            if blind.size:
                positions[(*(slice(None),) * number, blind)] = window_size(axes)
    if value is not y:
        y[...] = value


def _stages(x: Any, axes: Sequence[Axis], y: Any, wanted: bool, order: Any, nan: bool) -> tuple[Any, Any]:
    dtype = np.uint8 if window_size(axes) < 255 else np.int32
    value, position = x, None
    left = [i for i in order if not axes[i].is_identity]
    for i in left:
        shape = (*value.shape[: i + 1], axes[i].out, *value.shape[i + 2 :])
        out = y if i == left[-1] else np.empty(shape, x.dtype)
        weight = window_size(axes[i + 1 :])  # of this axis in the position
        value, position = _stage(value, position, axes[i], i + 1, out, wanted, dtype, weight, nan)
    if position is None and wanted:
        position = np.zeros(value.shape, dtype)
    return value, position


def _stage(
    x: Any, before: Any, axis: Axis, number: int, y: Any, wanted: bool, dtype: Any, weight: int, nan: bool
) -> tuple[Any, Any]:
    """The maxima along one axis, and their positions so far."""
    position = np.empty(y.shape, dtype) if wanted else None
    parts = steps(axis)
    if not parts or int(np.count_nonzero((taps(axis).index >= 0).any(axis=1))) < axis.out:
        y[...] = -np.inf
        if position is not None:
            position[...] = 0
    for k, new, outs, inputs in parts:
        candidate, into = x[_at(number, inputs)], _at(number, outs)
        earlier = None if before is None else before[_at(number, inputs)]
        if new:
            y[into] = candidate
            if position is not None:
                position[into] = k * weight if earlier is None else earlier + dtype(k * weight)
            continue
        best = y[into]
        if position is not None:
            better = np.greater(candidate, best)
            if nan:
                better |= np.isnan(candidate)
            here: Any = dtype(k * weight)
            at = position[into]
            if earlier is not None:
                here = earlier + here
                if not nan:
                    better |= np.equal(candidate, best) & np.less(here, at)
            _choose(better, here, at)
        np.maximum(best, candidate, out=best)
    return y, position


def _choose(better: Any, here: Any, position: Any) -> None:
    """``position = here`` where ``better``, in place."""
    if position.dtype == np.uint8:  # bit by bit: a tenth of what a choice of elements takes
        mask = np.negative(better.view(np.uint8))
        mask &= position ^ here
        position ^= mask
    else:
        np.copyto(position, here, where=better)


def backward(dy: Any, positions: Any, axes: Sequence[Axis], dx: Any) -> None:
    """``dx``: each gradient goes to the input that won."""
    apart = all(transposed(axis)[0].shape[1] == 1 for axis in axes)
    covered = all((transposed(axis)[0][:, 0] >= 0).all() for axis in axes)

    def work(start: int, stop: int) -> None:
        g, won, out = dy[start:stop], positions[start:stop], dx[start:stop]
        if not (apart and covered):
            out[...] = 0
        _spread(g, won, out, axes, apart)

    over_images(work, dx)


def _spread(g: Any, won: Any, out: Any, axes: Sequence[Axis], apart: bool) -> None:
    def place(i: int, position: int, into: tuple[Any, ...], of: tuple[Any, ...]) -> None:
        if i < len(axes):
            for k, _, outs, inputs in steps(axes[i]):
                place(i + 1, position + k * window_size(axes[i + 1 :]), (*into, inputs), (*of, outs))
            return
        mine = g[of] * np.equal(won[of], won.dtype.type(position))
        if apart:
            out[into] = mine
        else:
            out[into] += mine

    place(0, 0, (slice(None),), (slice(None),))
