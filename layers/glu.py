"""The gated linear unit."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from ..kernels.elementwise import over_rows
from ._elementwise import check_floating
from .module import Module


@op
def glu(x: Array, axis: int = -1) -> Any:
    """``a * sigmoid(b)``, where ``a`` and ``b`` are the first and the second half of ``x`` along ``axis``.

    With ``s = sigmoid(b)`` and ``y = a s``: ``da = dy s`` and ``db = dy y (1 - s)``.

    Args:
        x: floating point, an even number of elements along ``axis``.
        axis: the axis that is halved.
    Raises:
        ValueError: the number of elements along ``axis`` is odd, or there is no such axis.
    Source: Dauphin et al. 2017, arXiv 1612.08083.
    """
    check_floating("glu", x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"glu: axis must be one of the {x.ndim} axes of x, got axis={axis}")
    axis %= x.ndim
    if x.shape[axis] % 2:
        raise ValueError(f"glu: x must have an even number of elements along axis {axis}, got shape {x.shape}")
    backend = backend_of(x)
    device, shape, dtype = backend.device_of(x), x.shape, x.dtype
    outer, half = math.prod(shape[:axis]), math.prod(shape[axis:]) // 2
    wide = "float32" if dtype.itemsize == 2 else dtype
    y, s = (backend.empty((outer, half), wide, device) for _ in range(2))
    over_rows(_forward, x.reshape(outer, 2, half).astype(wide, copy=False), y, s)

    def backward(dy: Array) -> Any:
        dx = backend.empty((outer, 2, half), wide, device)
        over_rows(_backward, dy.reshape(outer, half).astype(wide, copy=False), y, s, dx)
        return (dx.astype(dtype, copy=False).reshape(shape),)

    return y.astype(dtype, copy=False).reshape(*shape[:axis], shape[axis] // 2, *shape[axis + 1 :]), backward


def _forward(xp: Any, x: Array, y: Array, s: Array) -> None:
    xp.negative(x[:, 1], out=s)
    xp.exp(s, out=s)
    s += 1.0
    xp.divide(1.0, s, out=s)
    xp.multiply(x[:, 0], s, out=y)


def _backward(xp: Any, dy: Array, y: Array, s: Array, dx: Array) -> None:
    xp.multiply(dy, s, out=dx[:, 0])
    db = dx[:, 1]
    xp.subtract(1.0, s, out=db)
    db *= y
    db *= dy


class GLU(Module):
    """``a * sigmoid(b)``, where ``a`` and ``b`` are the first and the second half of the input along ``axis``."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return glu(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
