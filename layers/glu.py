"""The gated linear unit."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..backend import Array
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
    y, s = kernels.glu(x, axis)
    return y, lambda dy: (kernels.glu_backward(dy, x, y, s, axis),)


class GLU(Module):
    """``a * sigmoid(b)``, where ``a`` and ``b`` are the first and the second half of the input along ``axis``."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return glu(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
