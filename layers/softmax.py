"""Softmax: scores to probabilities."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..backend import Array
from .module import Module


@op
def softmax(x: Array, axis: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along ``axis``, stable; a line of -inf gives 0.

    The Jacobian of a line is ``phi_k delta_jk - phi_j phi_k``.
    """
    y = kernels.softmax(x, axis)
    return y, lambda dy: (kernels.softmax_backward(dy, y, axis),)


class Softmax(Module):
    """Softmax along ``axis``."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
