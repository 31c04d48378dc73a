"""The rectified linear unit that leaks: a small slope below 0."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module
from .real import real


@op
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Any:
    """``x`` where ``x > 0``, else ``negative_slope * x``, elementwise; the slope at 0 is ``negative_slope``.

    Where lecture notes write ``x / alpha`` below 0, as in ``max(x, x / alpha)``, ``negative_slope`` is ``1 / alpha``.
    """
    return activation("leaky_relu", x, _form(negative_slope))


def _form(a: float) -> Activation:
    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        xp.multiply(x, a, out=y)
        (xp.maximum if a <= 1 else xp.minimum)(x, y, out=y)
        if slope is None:
            return
        if 0 <= a <= 1:
            slope[...] = x > 0
            xp.clip(slope, a, 1.0, out=slope)
        else:
            slope[...] = xp.where(x > 0, 1.0, a)

    return Activation("leaky_relu", fill, a)


class LeakyReLU(Module):
    """``x`` where ``x > 0``, else ``negative_slope * x``, elementwise.

    Args:
        negative_slope: the slope below 0; ``1 / alpha`` for the form ``max(x, x / alpha)``.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = real("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Any) -> Tensor:
        return leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"

    def fused_form(self) -> Activation:
        return _form(self.negative_slope)
