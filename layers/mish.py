"""Mish: x tanh(softplus(x))."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module

_HUGE = 1e30  # finite, and beyond every x that matters: no inf * 0
_LARGE = 20.0  # beyond, mish(x) is x to the last digit, in float64 too


@op
def mish(x: Array) -> Any:
    """``x tanh(log(1 + exp(x)))``, elementwise.

    With ``e = exp(x)`` and ``n = e (e + 2)`` it is ``x n / (n + 2)``; the slope is
    ``n / (n + 2) + 4 x e (e + 1) / (n + 2)**2``. Neither subtracts, so small values keep their digits.
    Source: Misra 2019, arXiv 1908.08681.
    """
    return activation("mish", x, _FORM)


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    xp.clip(x, -math.inf, _LARGE, out=t)
    xp.exp(t, out=t)  # e
    xp.add(t, 2.0, out=y)
    y *= t  # n
    if slope is None:
        xp.add(y, 2.0, out=t)
        y /= t
    else:
        xp.add(y, 2.0, out=slope)
        y /= slope
        xp.square(slope, out=slope)
        xp.divide(t, slope, out=slope)
        t += 1.0
        slope *= t
        slope *= 4.0
        xp.clip(x, -_HUGE, _LARGE, out=t)
        slope *= t
        slope += y
    xp.clip(x, -_HUGE, math.inf, out=t)
    y *= t


_FORM = Activation("mish", _fill)


class Mish(Module):
    """``x tanh(log(1 + exp(x)))``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return mish(x)

    def fused_form(self) -> Activation:
        return _FORM
