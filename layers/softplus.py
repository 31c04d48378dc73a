"""Softplus: a smooth max(x, 0)."""

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
def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """``log(1 + exp(beta x)) / beta``, elementwise, and ``x`` itself where ``beta x > threshold``.

    The derivative is the sigmoid of ``beta x``, 1 where the function is ``x``. Computed as
    ``(max(z, 0) + log(1 + exp(-|z|))) / beta`` with ``z = beta x``, which overflows nowhere.
    """
    if beta == 0:
        raise ValueError("softplus: beta must not be 0")
    return activation("softplus", x, _form(beta, threshold))


def _form(beta: float, threshold: float) -> Activation:
    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        z = x if beta == 1 else x * x.dtype.type(beta)
        if slope is not None:
            xp.negative(z, out=slope)
            xp.exp(slope, out=slope)
            slope += 1.0
            xp.divide(1.0, slope, out=slope)
        xp.absolute(z, out=t)
        xp.negative(t, out=t)
        xp.exp(t, out=t)
        xp.log1p(t, out=t)
        xp.clip(z, 0.0, math.inf, out=y)
        y += t
        if beta != 1:
            y /= beta
        if x.dtype.itemsize == 8 or threshold < 16:  # else log(1 + exp(-z)) is below half a unit of the sum
            linear = z > threshold
            y[...] = xp.where(linear, x, y)
            if slope is not None:
                slope[...] = xp.where(linear, 1.0, slope)

    return Activation("softplus", fill, beta, threshold)


class Softplus(Module):
    """``log(1 + exp(beta x)) / beta``, elementwise, and ``x`` itself where ``beta x > threshold``."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = real("Softplus", "beta", beta)
        self.threshold = real("Softplus", "threshold", threshold)
        if self.beta == 0:
            raise ValueError("Softplus: beta must not be 0")

    def forward(self, x: Any) -> Tensor:
        return softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"

    def fused_form(self) -> Activation:
        return _form(self.beta, self.threshold)
