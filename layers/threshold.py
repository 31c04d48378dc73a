"""The identity above a threshold, a constant below."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module
from .real import real

_HUGE = 1e38  # finite: no -inf * 0


@op
def threshold(x: Array, threshold: float, value: float) -> Any:
    """``x`` where ``x > threshold``, else ``value``, elementwise; the slope at the threshold is 0."""

    return activation("threshold", x, _form(threshold, value))


def _form(threshold: float, value: float) -> Activation:
    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        y[...] = x <= threshold
        y *= value
        above = x > threshold
        xp.clip(x, -_HUGE, math.inf, out=t)
        t *= above  # NumPy's where is ten times slower than a product
        y += t
        if slope is not None:
            slope[...] = above

    return Activation("threshold_", fill, threshold, value)


class Threshold(Module):
    """``x`` where ``x > threshold``, else ``value``, elementwise."""

    def __init__(self, threshold: float, value: float) -> None:
        self.threshold = real("Threshold", "threshold", threshold)
        self.value = value

    def forward(self, x: Any) -> Tensor:
        return threshold(x, self.threshold, self.value)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"

    def fused_form(self) -> Activation:
        return _form(self.threshold, self.value)
