"""Swish with the sigmoid in three straight pieces."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module


@op
def hardswish(x: Array) -> Any:
    """``x min(max(x + 3, 0), 6) / 6``, elementwise; the slope is 0 up to -3, ``x / 3 + 1/2`` in between, 1 from 3 on.

    Source: Howard et al. 2019, arXiv 1905.02244.
    """
    return activation("hardswish", x, _FORM)


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    xp.add(x, 3.0, out=y)
    xp.clip(y, 0.0, 6.0, out=y)
    xp.clip(x, -3.0, math.inf, out=t)  # no -inf * 0
    y *= t
    y /= 6.0
    if slope is not None:
        xp.clip(x, -3.0, 3.0, out=t)
        t /= 3.0
        t += 0.5
        slope[...] = (x > -3) & (x < 3)
        slope *= t
        t[...] = x >= 3
        slope += t


_FORM = Activation("hardswish", _fill)


class Hardswish(Module):
    """``x min(max(x + 3, 0), 6) / 6``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return hardswish(x)

    def fused_form(self) -> Activation:
        return _FORM
