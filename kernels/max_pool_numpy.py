"""Max pooling on the CPU: one axis after another, over all images of a chunk at a time.

The values are maxima of slices. Of equal values the first in row-major order wins: along a later axis a candidate that
is equal wins where it stands earlier on the axes before. Which input won is its position in the window, a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ..backend import parallel
from .image_axes import Axis, steps, taps, transposed, window_size
from .layer_norm_numpy import ones
from .scratch import SCRATCH, Scratch

_CHUNK = 1 << 19  # elements of the input that are worked on at a time: smaller ones cost more in calls than in cache
_GRAIN = 1 << 18  # elements that are worth waking a thread for

def _at(axis: int, where: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, where)


def forward(x: Any, axes: Sequence[Axis], y: Any, positions: Any) -> None:
    """``y`` and, unless it is None, ``positions``; ``x`` is (images, spatial axes …, channels)."""

    def work(start: int, stop: int, room: Scratch) -> None:
        _forward(x[start:stop], axes, y[start:stop], None if positions is None else positions[start:stop], room)

    over_images(work, x)


def over_images(work: Any, x: Any) -> None:
    """``work(start, stop, room)`` over chunks of images, in threads where it pays."""
    each = max(1, x[:1].size)
    step = max(1, _CHUNK // each)

    def part(first: int, last: int) -> None:
        for chunk in range(first, last):
            work(chunk * step, min((chunk + 1) * step, len(x)), SCRATCH)
        SCRATCH.tidy()

    parallel(part, -(-len(x) // step), max(1, _GRAIN // (each * step)))


def _forward(x: Any, axes: Sequence[Axis], y: Any, positions: Any, room: Scratch) -> None:
    value, position = _stages(x, axes, y, positions, range(len(axes)), False, room)
    if positions is not None:
        total = np.dot(value.reshape(-1), ones(value.size, value.dtype))
        if not np.isfinite(total) and np.isnan(value).any():
            # With a NaN, the last one of a window wins: along the last axis first, later candidates always win a tie.
            value, position = _stages(x, axes, y, positions, range(len(axes) - 1, -1, -1), True, room)
        if position is not positions:
            positions[...] = position
        for number, axis in enumerate(axes, start=1):
            blind = np.flatnonzero((taps(axis).index < 0).all(axis=1))  # windows that see only padding
            if blind.size:
                positions[(*(slice(None),) * number, blind)] = window_size(axes)
    if value is not y:
        y[...] = value


def _stages(
    x: Any, axes: Sequence[Axis], y: Any, positions: Any, order: Any, nan: bool, room: Scratch
) -> tuple[Any, Any]:
    """The values and positions, in ``y`` and ``positions`` unless no axis has windows."""
    value, position = x, None
    left = [i for i in order if not axes[i].is_identity]
    for i in left:
        shape = (*value.shape[: i + 1], axes[i].out, *value.shape[i + 2 :])
        into, where = y, positions
        if i != left[-1]:
            into = room(f"value {i}", shape, x.dtype)
            where = None if positions is None else room(f"position {i}", shape, positions.dtype)
        weight = window_size(axes[i + 1 :])  # of this axis in the position
        _stage(value, position, axes[i], i + 1, into, where, weight, nan, room)
        value, position = into, where
    if not left and positions is not None:
        positions[...] = 0
        position = positions
    return value, position


def _stage(
    x: Any, before: Any, axis: Axis, number: int, y: Any, position: Any, weight: int, nan: bool, room: Scratch
) -> None:
    """The maxima along one axis, in ``y``, and their positions so far."""
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
                position[into] = k * weight
                if earlier is not None:
                    position[into] += earlier
            continue
        best = y[into]
        if position is not None:
            shape, at = best.shape, position[into]
            if not candidate.flags.c_contiguous:  # it is read three times: short rows cost more than a copy
                copied = room("candidate", shape, x.dtype)
                copied[...] = candidate
                candidate = copied
            better, spare = room("better", shape, bool), room("spare", shape, bool)
            np.greater(candidate, best, better)
            if nan:
                better |= np.isnan(candidate, spare)
            here: Any = position.dtype.type(k * weight)
            if earlier is not None:
                here = np.add(earlier, here, room("here", shape, position.dtype))
                if not nan:
                    better |= np.logical_and(np.equal(candidate, best, spare), np.less(here, at), spare)
            _choose(better, here, at, room)
        np.maximum(best, candidate, out=best)


def _choose(better: Any, here: Any, position: Any, room: Scratch) -> None:
    """``position = here`` where ``better``, in place."""
    if position.dtype == np.uint8:  # bit by bit: a tenth of what a choice of elements takes
        mask = np.negative(better.view(np.uint8), better.view(np.uint8))
        mask &= np.bitwise_xor(position, here, room("bits", position.shape, np.uint8))
        position ^= mask
    else:
        np.copyto(position, here, where=better)


def backward(dy: Any, positions: Any, axes: Sequence[Axis], dx: Any) -> None:
    """``dx``: each gradient goes to the input that won."""
    apart = all(transposed(axis)[0].shape[1] == 1 for axis in axes)
    covered = all((transposed(axis)[0][:, 0] >= 0).all() for axis in axes)

    def work(start: int, stop: int, room: Scratch) -> None:
        g, won, out = dy[start:stop], positions[start:stop], dx[start:stop]
        if not (apart and covered):
            out[...] = 0
        _spread(g, won, out, axes, apart, room)

    over_images(work, dx)


def _spread(g: Any, won: Any, out: Any, axes: Sequence[Axis], apart: bool, room: Scratch) -> None:
    for parts in product(*(steps(axis) for axis in axes)):
        into: tuple[Any, ...] = (slice(None),)
        of: tuple[Any, ...] = (slice(None),)
        position = 0
        for axis, (k, _, outs, inputs) in zip(axes, parts, strict=True):
            position = position * taps(axis).most + k
            into, of = (*into, inputs), (*of, outs)
        given = g[of]
        mine = room("mine", given.shape, g.dtype)
        np.multiply(given, np.equal(won[of], won.dtype.type(position), room("here", given.shape, bool)), mine)
        if apart:
            out[into] = mine
        else:
            out[into] += mine
