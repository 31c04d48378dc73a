"""The complementary error function on plain arrays, in float64: NumPy has none."""

from __future__ import annotations

import math

import numpy as np

from ..backend import Array, backend_of

# erf(x) = x P(x**2) / Q(x**2) for |x| <= 0.46875
_SMALL = (
    *(1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2),
    3.20937758913846947e3,
)
_SMALL_BELOW = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
# exp(x**2) erfc(x) = P(x) / Q(x) for 0.46875 < x <= 4
_MIDDLE = (
    *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1),
    *(2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3),
    1.23033935479799725e3,
)
_MIDDLE_BELOW = (
    *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
    *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)
# exp(x**2) erfc(x) = (1 / sqrt(pi) - s P(s) / Q(s)) / x with s = 1 / x**2 for x > 4
_TAIL = (
    *(1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1),
    *(1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
)
_TAIL_BELOW = (
    *(1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1),
    *(6.05183413124413191e-2, 2.33520497626869185e-3),
)
_ZERO = 27.3  # erfc beyond is below the smallest number


def erfc(x: Array) -> Array:
    """``erfc(x) = 1 - erf(x)``, elementwise, float64, to a few units in the last place, also where it is tiny.

    Source: Cody 1969, "Rational Chebyshev approximations for the error function", Math. Comp. 23, and his program
    CALERF, whose coefficients these are.
    """
    xp = backend_of(x).xp
    with np.errstate(all="ignore"):
        a = xp.clip(xp.absolute(x), 0.0, _ZERO)
        z = xp.clip(a, 0.0, 0.46875) ** 2
        small = 1.0 - x * (_horner(_SMALL, z) / _horner(_SMALL_BELOW, z))
        m = xp.clip(a, 0.46875, 4.0)
        middle = _horner(_MIDDLE, m) / _horner(_MIDDLE_BELOW, m)
        b = xp.clip(a, 4.0, _ZERO)
        s = 1.0 / (b * b)
        tail = (1.0 / math.sqrt(math.pi) - s * (_horner(_TAIL, s) / _horner(_TAIL_BELOW, s))) / b
        # exp(-a**2): a is split so that the first square is exact
        head = xp.floor(a * 16.0) / 16.0
        upper = xp.where(a <= 4.0, middle, tail) * (xp.exp(-head * head) * xp.exp((head - a) * (head + a)))
        y = xp.where(a <= 0.46875, small, xp.where(x < 0, 2.0 - upper, upper))
        return xp.where(x > _ZERO, 0.0, y)


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    y = x * coefficients[0]
    for c in coefficients[1:-1]:
        y += c
        y *= x
    y += coefficients[-1]
    return y
