"""The hyperbolic tangent as an activation."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation, has_activation_kernel
from ..kernels.elementwise import elementwise
from ._elementwise import by_kernel, check_floating, register_form
from .module import Module


@op
def tanh(x: Array) -> Any:
    """``y = (e**x - e**-x) / (e**x + e**-x)``, elementwise; ``dy/dx = 1 - y**2``."""
    check_floating("tanh", x)
    if has_activation_kernel(x):
        return by_kernel(x, _FORM)
    (y,) = elementwise(_tanh, x, quiet=False)
    return y, lambda dy: elementwise(_tanh_backward, dy, y, quiet=False)


def _tanh(xp: Any, x: Array, y: Array) -> None:
    xp.tanh(x, out=y)


def _tanh_backward(xp: Any, dy: Array, y: Array, dx: Array) -> None:
    xp.square(y, out=dx)
    xp.subtract(1.0, dx, out=dx)
    dx *= dy


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    xp.tanh(x, out=y)
    if slope is not None:
        xp.square(y, out=slope)
        xp.subtract(1.0, slope, out=slope)


_FORM = Activation("tanh_", _fill)
register_form(tanh, _FORM)


class Tanh(Module):
    """``tanh x``, elementwise: between -1 and 1, odd, derivative ``1 - y**2``."""

    def forward(self, x: Any) -> Tensor:
        return tanh(x)

    def fused_form(self) -> Activation:
        return _FORM
