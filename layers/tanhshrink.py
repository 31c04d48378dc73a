"""What the hyperbolic tangent leaves: x - tanh x."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module


@op
def tanhshrink(x: Array) -> Any:
    """``x - tanh x``, elementwise; the slope is ``tanh(x)**2``."""
    return activation("tanhshrink", x, _FORM)


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    xp.tanh(x, out=t)
    xp.subtract(x, t, out=y)
    if slope is not None:
        xp.square(t, out=slope)


_FORM = Activation("tanhshrink", _fill)


class Tanhshrink(Module):
    """``x - tanh x``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return tanhshrink(x)

    def fused_form(self) -> Activation:
        return _FORM
