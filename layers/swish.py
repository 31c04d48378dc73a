"""Swish: x times a sigmoid whose sharpness is learned."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Parameter, Tensor, op, tensor
from ..backend import Array
from ..kernels.activation import Activation, has_activation_kernel
from ..kernels.elementwise import elementwise
from ..kernels.learned_activation import learned_backward, learned_forward
from ._elementwise import activation
from .module import Module
from .real import real

_HUGE = 1e30  # finite, and beyond every x that matters: no inf * 0


@op
def swish(x: Array, beta: Any = 1.0) -> Any:
    """``y = x s`` with ``s = 1 / (1 + exp(-beta x))``, elementwise: x/2 for ``beta`` 0, ReLU as ``beta`` grows.

    ``dy/dx = s (1 + beta x (1 - s))`` and ``dy/dbeta = y (x - y)``.

    Args:
        x: floating point.
        beta: a number, or an array or tensor of shape ``()``.
    Raises:
        ValueError: ``beta`` is an array with axes.
    Source: Ramachandran, Zoph, Le 2017, arXiv 1710.05941.
    """
    if not hasattr(beta, "shape"):
        return activation("swish", x, swish_form(beta))
    if beta.shape != ():
        raise ValueError(f"swish: beta must be a number or of shape (), got shape {beta.shape}")
    if has_activation_kernel(x):
        return learned_forward(x, beta, "swish"), lambda dy: learned_backward(dy, x, beta, "swish")
    y, backward = activation("swish", x, swish_form(beta))

    def share(xp: Any, dy: Array, x: Array, y: Array, out: Array) -> None:
        xp.subtract(x, y, out=out)
        out *= y
        out *= dy

    def dbeta(dy: Array, out: Any) -> Array:
        (shares,) = elementwise(share, dy, x, y)
        return shares.sum(dtype="float32" if beta.dtype.itemsize == 2 else None).astype(beta.dtype)

    return y, (lambda dy, out: backward(dy)[0], dbeta)


def swish_form(beta: Any) -> Activation:
    """Swish and its slope."""
    falling = isinstance(beta, (int, float)) and beta < 0  # then s is 0 at +inf, not at -inf
    low, high = (-math.inf, _HUGE) if falling else (-_HUGE, math.inf)

    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        xp.multiply(x, beta, out=t)
        xp.negative(t, out=t)
        xp.exp(t, out=t)
        t += 1.0
        if slope is None:
            xp.divide(1.0, t, out=t)  # s
            xp.clip(x, low, high, out=y)
            y *= t
            return
        xp.divide(1.0, t, out=slope)
        xp.subtract(1.0, slope, out=y)
        xp.clip(x, -_HUGE, _HUGE, out=t)
        y *= t
        y *= slope
        y *= beta  # beta x s (1 - s)
        xp.clip(x, low, high, out=t)
        t *= slope
        slope += y
        y[...] = t

    return Activation("swish", fill, beta)


class Swish(Module):
    """``x / (1 + exp(-beta x))``, elementwise, with a learned ``beta``.

    Args:
        beta: the value to begin with.

    Attributes:
        beta: a parameter of shape ``()``.
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = Parameter(tensor(real("Swish", "beta", beta), dtype="float32").data)

    def forward(self, x: Any) -> Tensor:
        return swish(x, self.beta)
