"""Log-softmax: scores to log-probabilities."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..backend import Array
from .module import Module


@op
def log_softmax(x: Array, axis: int = -1) -> Any:
    """``y = x - log(sum(exp(x)))`` along ``axis``, stable; a line of -inf stays -inf.

    ``dx = dy - exp(y) sum(dy)``.

    Args:
        x: logits, at least one axis, floating point.
        axis: the axis whose exponentials add up to 1.
    """
    y = kernels.log_softmax(x, axis)
    return y, lambda dy: (kernels.log_softmax_backward(dy, y, axis),)


class LogSoftmax(Module):
    """Log-softmax along ``axis``."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        return log_softmax(x, self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"
