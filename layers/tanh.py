"""The hyperbolic tangent as an activation."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.elementwise import elementwise
from ._elementwise import check_floating
from .module import Module


@op
def tanh(x: Array) -> Any:
    """``y = (e**x - e**-x) / (e**x + e**-x)``, elementwise; ``dy/dx = 1 - y**2``."""
    check_floating("tanh", x)
    (y,) = elementwise(_tanh, x, quiet=False)
    return y, lambda dy: elementwise(_tanh_backward, dy, y, quiet=False)


def _tanh(xp: Any, x: Array, y: Array) -> None:
    xp.tanh(x, out=y)


def _tanh_backward(xp: Any, dy: Array, y: Array, dx: Array) -> None:
    xp.square(y, out=dx)
    xp.subtract(1.0, dx, out=dx)
    dx *= dy


class Tanh(Module):
    """``tanh x``, elementwise: between -1 and 1, odd, derivative ``1 - y**2``."""

    def forward(self, x: Any) -> Tensor:
        return tanh(x)
