"""The logistic sigmoid."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation, has_activation_kernel
from ..kernels.elementwise import elementwise
from ._elementwise import by_kernel, check_floating, register_form
from .module import Module


@op
def sigmoid(x: Array) -> Any:
    """``y = 1 / (1 + exp(-x))``, elementwise; ``dy/dx = y (1 - y)``. Accurate down to the smallest numbers."""
    check_floating("sigmoid", x)
    if has_activation_kernel(x):
        return by_kernel(x, _FORM)
    (y,) = elementwise(_sigmoid, x)
    return y, lambda dy: elementwise(_sigmoid_backward, dy, y, quiet=False)


def _sigmoid(xp: Any, x: Array, y: Array) -> None:
    xp.negative(x, out=y)
    xp.exp(y, out=y)  # inf below -88 in float32, where y is 0
    y += 1.0
    xp.divide(1.0, y, out=y)


def _sigmoid_backward(xp: Any, dy: Array, y: Array, dx: Array) -> None:
    xp.subtract(1.0, y, out=dx)
    dx *= y
    dx *= dy


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    _sigmoid(xp, x, y)
    if slope is not None:
        xp.subtract(1.0, y, out=slope)
        slope *= y


_FORM = Activation("sigmoid", _fill)
register_form(sigmoid, _FORM)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return sigmoid(x)

    def fused_form(self) -> Activation:
        return _FORM
