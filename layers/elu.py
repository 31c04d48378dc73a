"""The exponential linear unit."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module
from .real import real


@op
def elu(x: Array, alpha: float = 1.0) -> Any:
    """``x`` where ``x > 0``, else ``alpha * (exp(x) - 1)``, elementwise; the slope at 0 is ``alpha``.

    Source: Clevert, Unterthiner, Hochreiter 2016, arXiv 1511.07289.
    """
    return activation("elu", x, elu_form(alpha, 1.0))


def elu_form(alpha: float, scale: float) -> Activation:
    """``scale * elu(x, alpha)`` and its slope."""
    low = scale * alpha

    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        xp.clip(x, -math.inf, 0.0, out=t)
        xp.expm1(t, out=t)
        if low != 1:
            t *= low  # what is added below 0
        if slope is not None:
            xp.add(t, low, out=slope)  # low * exp(x), and low above 0, where scale is wanted
            if low != scale:
                slope += (x > 0) * x.dtype.type(scale - low)
        xp.clip(x, 0.0, math.inf, out=y)
        if scale != 1:
            y *= scale
        y += t

    return Activation("elu", fill, low, scale)


class ELU(Module):
    """``x`` where ``x > 0``, else ``alpha * (exp(x) - 1)``, elementwise."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = real("ELU", "alpha", alpha)

    def forward(self, x: Any) -> Tensor:
        return elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"

    def fused_form(self) -> Activation:
        return elu_form(self.alpha, 1.0)
