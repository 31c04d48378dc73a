"""The continuously differentiable exponential linear unit."""

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
def celu(x: Array, alpha: float = 1.0) -> Any:
    """``x`` where ``x > 0``, else ``alpha * (exp(x / alpha) - 1)``, elementwise; the slope at 0 is 1.

    Source: Barron 2017, arXiv 1704.07483.
    """
    if not alpha > 0:
        raise ValueError(f"celu: alpha must be greater than 0, got {alpha}")

    return activation("celu", x, _form(alpha))


def _form(alpha: float) -> Activation:
    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        xp.clip(x, -math.inf, 0.0, out=t)
        t /= alpha
        xp.expm1(t, out=t)
        if slope is not None:
            xp.add(t, 1.0, out=slope)
        t *= alpha
        xp.clip(x, 0.0, math.inf, out=y)
        y += t

    return Activation("celu", fill, alpha)


class CELU(Module):
    """``x`` where ``x > 0``, else ``alpha * (exp(x / alpha) - 1)``, elementwise."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = real("CELU", "alpha", alpha)
        if not self.alpha > 0:
            raise ValueError(f"CELU: alpha must be greater than 0, got {alpha}")

    def forward(self, x: Any) -> Tensor:
        return celu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"

    def fused_form(self) -> Activation:
        return _form(self.alpha)
