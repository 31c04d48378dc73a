"""The logarithm of the sigmoid."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module


@op
def logsigmoid(x: Array) -> Any:
    """``-log(1 + exp(-x))``, elementwise, as ``min(x, 0) - log(1 + exp(-|x|))``; the slope is ``1 / (1 + exp(x))``."""
    return activation("logsigmoid", x, _FORM)


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    if slope is not None:
        xp.exp(x, out=slope)
        slope += 1.0
        xp.divide(1.0, slope, out=slope)
    xp.absolute(x, out=t)
    xp.negative(t, out=t)
    xp.exp(t, out=t)
    xp.log1p(t, out=t)
    xp.clip(x, -math.inf, 0.0, out=y)
    y -= t


_FORM = Activation("logsigmoid", _fill)


class LogSigmoid(Module):
    """``-log(1 + exp(-x))``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return logsigmoid(x)

    def fused_form(self) -> Activation:
        return _FORM
