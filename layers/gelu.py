"""The Gaussian error linear unit."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ..kernels.erf import erfc
from ._elementwise import activation, register_form
from .module import Module
from .swish import swish_form

_LARGE = 40.0  # beyond, every form is 0 or x to the last digit, in float64 too
_SQRT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
_TANH, _CUBIC = math.sqrt(2 / math.pi), 0.044715
# R in Phi(x) = (1 + tanh(x R(x**2))) / 2, fitted for the smallest largest error of x Phi(x): 1.6e-7.
_A, _B, _C, _D, _E, _F = 1.20756045, 0.0177569413, -3.35406974, -16.1868675, 944.840570, 38.7643021


@op
def gelu(x: Array, approximate: str = "none") -> Any:
    """``x Phi(x)``, elementwise, where ``Phi(x) = (1 + erf(x / sqrt(2))) / 2`` is the normal distribution function.

    float64 is accurate to 1e-15, float32 to 4e-7, each times ``max(1, |x|)``.

    Args:
        x: floating point.
        approximate: ``"none"``, or one of two other functions that models were trained with: ``"tanh"``, with
            ``Phi(x) ~ (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2`` (GPT-2), at most 4.8e-4 away, or ``"sigmoid"``
            with ``Phi(x) ~ 1 / (1 + exp(-1.702 x))`` (CLIP), at most 2.1e-2 away.
    Source: Hendrycks, Gimpel 2016, arXiv 1606.08415.
    """
    _check("gelu", approximate)
    return activation("gelu", x, _FORMS[approximate])


def _by_erf(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    if x.dtype.itemsize == 8:
        xp.multiply(x, -_SQRT_HALF, out=t)
        xp.multiply(erfc(t), 0.5, out=y)
    else:
        xp.square(x, out=t)
        xp.add(t, _F, out=y)
        xp.divide(_E, y, out=y)
        y += t
        y += _D
        xp.divide(_C, y, out=y)
        t *= _B
        y += t
        y += _A
        y *= x
        xp.tanh(y, out=y)
        y *= 0.5
        y += 0.5
    if slope is not None:  # Phi(x) + x exp(-x**2 / 2) / sqrt(2 pi)
        xp.clip(x, -_LARGE, _LARGE, out=t)
        xp.square(t, out=slope)
        slope *= -0.5
        xp.exp(slope, out=slope)
        t *= _DENSITY
        slope *= t
        slope += y
    xp.clip(x, -_LARGE, math.inf, out=t)  # no -inf * 0
    y *= t


def _by_tanh(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    xp.square(x, out=y)
    y *= _TANH * _CUBIC
    y += _TANH
    y *= x
    xp.tanh(y, out=y)
    if slope is not None:  # (1 + tanh q + x q' (1 - tanh(q)**2)) / 2
        xp.square(y, out=slope)
        xp.subtract(1.0, slope, out=slope)
        xp.clip(x, -_LARGE, _LARGE, out=t)
        slope *= t
        xp.square(t, out=t)
        t *= 3 * _TANH * _CUBIC
        t += _TANH
        slope *= t
        slope += y
        slope += 1.0
        slope *= 0.5
    y += 1.0
    xp.clip(x, -_LARGE, math.inf, out=t)
    t *= 0.5
    y *= t


_FORMS = {
    "none": Activation("gelu", _by_erf),
    "tanh": Activation("gelu_tanh", _by_tanh),
    "sigmoid": swish_form(1.702),
}
register_form(gelu, _FORMS["none"])


def _check(name: str, approximate: str) -> None:
    if approximate not in _FORMS:
        raise ValueError(f'{name}: approximate must be "none", "tanh" or "sigmoid", got {approximate!r}')


class GELU(Module):
    """``x Phi(x)``, elementwise; see :func:`gelu`.

    Args:
        approximate: ``"none"`` (by erf), ``"tanh"`` or ``"sigmoid"``.
    """

    def __init__(self, approximate: str = "none") -> None:
        _check("GELU", approximate)
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        return gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"

    def fused_form(self) -> Activation:
        return _FORMS[self.approximate]
