"""The sigmoid in three straight pieces."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module


@op
def hardsigmoid(x: Array) -> Any:
    """``min(max(x + 3, 0), 6) / 6``, elementwise; the slope is 1/6 between -3 and 3, 0 at and beyond them.

    Chainer and Keras 2 have ``0.2 x + 0.5`` in the middle.
    """
    return activation("hardsigmoid", x, _FORM)


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    xp.add(x, 3.0, out=y)
    xp.clip(y, 0.0, 6.0, out=y)
    y /= 6.0
    if slope is not None:
        slope[...] = (x > -3) & (x < 3)
        slope /= 6.0


_FORM = Activation("hardsigmoid", _fill)


class Hardsigmoid(Module):
    """``min(max(x + 3, 0), 6) / 6``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return hardsigmoid(x)

    def fused_form(self) -> Activation:
        return _FORM
