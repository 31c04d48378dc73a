"""Softsign, ``x / (1 + |x|)``."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module

_HUGE = 1e38  # finite, and 1 is lost beside it: no inf / inf


@op
def softsign(x: Array) -> Any:
    """``x / (1 + |x|)``, elementwise; the slope is ``1 / (1 + |x|)**2``."""
    return activation("softsign", x, _FORM)


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    xp.clip(x, -_HUGE, _HUGE, out=t)
    xp.absolute(t, out=y)
    y += 1.0
    if slope is not None:
        xp.divide(1.0, y, out=slope)
        xp.square(slope, out=slope)
    xp.divide(t, y, out=y)


_FORM = Activation("softsign", _fill)


class Softsign(Module):
    """``x / (1 + |x|)``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return softsign(x)

    def fused_form(self) -> Activation:
        return _FORM
