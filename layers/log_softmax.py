"""Log-softmax: scores to log-probabilities."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from ..kernels.elementwise import over_rows
from ._elementwise import check_floating
from .module import Module


@op
def log_softmax(x: Array, axis: int = -1) -> Any:
    """``y = x - log(sum(exp(x)))`` along ``axis``, stable; a line of -inf stays -inf.

    ``dx = dy - exp(y) sum(dy)``.

    Args:
        x: logits, at least one axis, floating point.
        axis: the axis whose exponentials add up to 1.
    """
    check_floating("log_softmax", x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"log_softmax: axis must be one of the {x.ndim} axes of x, got axis={axis}")
    backend = backend_of(x)
    xp = backend.xp
    moved = xp.moveaxis(x, axis, -1)
    shape, dtype, device = moved.shape, x.dtype, backend.device_of(x)
    layout = (math.prod(shape[:-1]), shape[-1])
    wide = "float32" if dtype.itemsize == 2 else dtype
    y = backend.empty(layout, wide, device)
    if x.size:
        over_rows(_forward, moved.reshape(layout).astype(wide, copy=False), y, scratch=1)

    def given(rows: Array) -> Array:
        return xp.moveaxis(rows.astype(dtype, copy=False).reshape(shape), -1, axis)

    def backward(dy: Array) -> Any:
        dx = backend.empty(layout, wide, device)
        if dx.size:
            rows = xp.moveaxis(dy, axis, -1).reshape(layout).astype(wide, copy=False)
            over_rows(_backward, rows, y, dx)
        return (given(dx),)

    return given(y), backward


def _forward(xp: Any, x: Array, y: Array, t: Array) -> None:
    largest = xp.max(x, axis=1, keepdims=True)
    xp.subtract(x, xp.clip(largest, _LOWEST, math.inf), out=y)  # a line of -inf forms no inf - inf
    xp.exp(y, out=t)
    total = xp.sum(t, axis=1, keepdims=True)
    y -= xp.log(xp.clip(total, 1.0, math.inf))  # the largest logit adds 1: only lines of -inf have less


_LOWEST = -1e38


def _backward(xp: Any, dy: Array, y: Array, dx: Array) -> None:
    xp.exp(y, out=dx)
    dx *= xp.sum(dy, axis=1, keepdims=True)
    xp.subtract(dy, dx, out=dx)


class LogSoftmax(Module):
    """Log-softmax along ``axis``."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return log_softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
