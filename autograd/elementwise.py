"""Elementwise arithmetic, comparison and the usual functions, each with its derivative under it.

Broadcasting follows NumPy, and so does the mixing of dtypes: Python numbers never widen. Where the array API and NumPy
spell a function differently both names are given.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ..backend import Array, backend_of
from .tape import broadcasting_op, op
from .tensor import Tensor, is_floating, wrap

_NUMBERS = (int, float, bool)


# -- arithmetic ---------------------------------------------------------------------------------------------------


@broadcasting_op
def add(x: Array, y: Array) -> Any:
    """``x + y``."""
    return x + y, lambda dy: (dy, dy)


@broadcasting_op
def subtract(x: Array, y: Array) -> Any:
    """``x - y``."""
    return x - y, (lambda dy, out: dy, lambda dy, out: -dy)


@broadcasting_op
def multiply(x: Array, y: Array) -> Any:
    """``x * y``."""
    return x * y, (lambda dy, out: dy * y, lambda dy, out: dy * x)


@broadcasting_op
def divide(x: Array, y: Array) -> Any:
    """``x / y``."""
    z = x / y
    return z, (lambda dy, out: dy / y, lambda dy, out: -dy * z / y)


@broadcasting_op
def power(x: Array, y: Array) -> Any:
    """``x ** y``; the derivative with respect to ``y`` is 0 where ``x`` is 0."""
    if type(y) in _NUMBERS:
        return _power_of_number(x, y)
    xp = backend_of(y).xp
    z = x**y

    def dx(dy: Array, out: Any) -> Array:  # 0 at y = 0, also where x is 0
        return dy * (y * x ** xp.where(y == 0, 1, y - 1))

    def dexponent(dy: Array, out: Any) -> Array:
        return dy * (z * xp.log(xp.where(xp.equal(x, 0), z.dtype.type(1), x)))

    return z, (dx, dexponent)


def _power_of_number(x: Array, c: float) -> Any:
    if c == 2:  # NumPy's power is two hundred times slower than a product
        return x * x, lambda dy: (dy * (2 * x),)
    if c == 0.5 and is_floating(x.dtype):
        z = backend_of(x).xp.sqrt(x)
        return z, lambda dy: (dy * 0.5 / z,)
    if c == 0:
        return x**c, lambda dy: (dy * 0,)
    return x**c, lambda dy: (dy * (c * x ** (c - 1)),)


@op
def negative(x: Array) -> Any:
    """``-x``."""
    return -x, lambda dy: (-dy,)


@op
def positive(x: Array) -> Any:
    """A copy of ``x``."""
    return +x, lambda dy: (dy,)


@broadcasting_op
def maximum(x: Array, y: Array) -> Any:
    """The larger of two values; equal values share the gradient equally. NaN where either is NaN."""
    return _extremum(x, y, "maximum")


@broadcasting_op
def minimum(x: Array, y: Array) -> Any:
    """The smaller of two values; equal values share the gradient equally. NaN where either is NaN."""
    return _extremum(x, y, "minimum")


def _extremum(x: Array, y: Array, name: str) -> Any:
    xp = backend_of(y if type(x) in _NUMBERS else x).xp
    z = getattr(xp, name)(x, y)

    def share(dy: Array, mine: Array) -> Array:
        tie = xp.equal(x, y).astype(dy.dtype)
        return dy * (xp.equal(mine, z).astype(dy.dtype) * (1 - 0.5 * tie))

    return z, (lambda dy, out: share(dy, x), lambda dy, out: share(dy, y))


@op
def clip(x: Array, min: float | None = None, max: float | None = None) -> Any:
    """``x`` moved into ``[min, max]``; the gradient passes where ``x`` was inside, the bounds included."""
    xp = backend_of(x).xp
    z = xp.clip(x, min, max)
    return z, lambda dy: (dy * (x == z).astype(dy.dtype),)


@broadcasting_op
def where(condition: Array, x: Array, y: Array) -> Any:
    """``x`` where ``condition`` holds, else ``y``."""
    xp = backend_of(condition).xp
    z = xp.where(condition, x, y)
    zero = z.dtype.type(0)
    return z, (
        None,
        lambda dy, out: xp.where(condition, dy, zero),
        lambda dy, out: xp.where(condition, zero, dy),
    )


@op
def astype(x: Array, dtype: Any) -> Any:
    """The same values in another dtype; the gradient comes back in the first."""
    before = x.dtype
    y = x.astype(dtype)
    return y, lambda dy: (dy.astype(before),)


# -- functions of one variable --------------------------------------------------------------------------------------


def _function(name: str, formula: str, slope: Callable[[Any, Array, Array], Array] | None) -> Callable[..., Tensor]:
    """An elementwise function of the array module with ``slope(xp, x, y)`` = dy/dx; None where it is 0 everywhere."""

    def function(x: Array) -> Any:
        xp = backend_of(x).xp
        y = getattr(xp, name)(x)
        if slope is None:
            return y, lambda dy: (dy * 0,)
        return y, lambda dy: (dy * slope(xp, x, y),)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{formula}``, elementwise."
    return op(function)


exp = _function("exp", "e ** x", lambda xp, x, y: y)
exp2 = _function("exp2", "2 ** x", lambda xp, x, y: y * 0.6931471805599453)
expm1 = _function("expm1", "e ** x - 1", lambda xp, x, y: y + 1)
log = _function("log", "ln x", lambda xp, x, y: 1 / x)
log2 = _function("log2", "log2 x", lambda xp, x, y: 1.4426950408889634 / x)
log10 = _function("log10", "log10 x", lambda xp, x, y: 0.4342944819032518 / x)
log1p = _function("log1p", "ln(1 + x)", lambda xp, x, y: 1 / (1 + x))
sqrt = _function("sqrt", "x ** 0.5", lambda xp, x, y: 0.5 / y)
square = _function("square", "x * x", lambda xp, x, y: 2 * x)
reciprocal = _function("reciprocal", "1 / x", lambda xp, x, y: -y * y)
sin = _function("sin", "sin x", lambda xp, x, y: xp.cos(x))
cos = _function("cos", "cos x", lambda xp, x, y: -xp.sin(x))
tan = _function("tan", "tan x", lambda xp, x, y: 1 + y * y)
arcsin = _function("arcsin", "the angle whose sine is x", lambda xp, x, y: 1 / xp.sqrt(1 - x * x))
arccos = _function("arccos", "the angle whose cosine is x", lambda xp, x, y: -1 / xp.sqrt(1 - x * x))
arctan = _function("arctan", "the angle whose tangent is x", lambda xp, x, y: 1 / (1 + x * x))
sinh = _function("sinh", "(e ** x - e ** -x) / 2", lambda xp, x, y: xp.cosh(x))
cosh = _function("cosh", "(e ** x + e ** -x) / 2", lambda xp, x, y: xp.sinh(x))
tanh = _function("tanh", "(e ** x - e ** -x) / (e ** x + e ** -x)", lambda xp, x, y: 1 - y * y)
arcsinh = _function("arcsinh", "ln(x + (x * x + 1) ** 0.5)", lambda xp, x, y: 1 / xp.sqrt(x * x + 1))
arccosh = _function("arccosh", "ln(x + (x * x - 1) ** 0.5)", lambda xp, x, y: 1 / xp.sqrt(x * x - 1))
arctanh = _function("arctanh", "ln((1 + x) / (1 - x)) / 2", lambda xp, x, y: 1 / (1 - x * x))
absolute = _function("absolute", "|x|, with slope 0 at 0", lambda xp, x, y: xp.sign(x))
sign = _function("sign", "-1, 0 or 1", None)
floor = _function("floor", "the next integer below", None)
ceil = _function("ceil", "the next integer above", None)
trunc = _function("trunc", "the next integer towards 0", None)
rint = _function("rint", "the nearest integer, halves to even", None)

# The array API's other spellings.
abs = absolute
pow = power
round = rint
asin, acos, atan, asinh, acosh, atanh = arcsin, arccos, arctan, arcsinh, arccosh, arctanh


# -- comparison: tensors of bool, off the tape ------------------------------------------------------------------------


def _comparison(name: str, compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Tensor]:
    def function(x: Any, y: Any) -> Tensor:
        a = x.data if isinstance(x, Tensor) else x
        b = y.data if isinstance(y, Tensor) else y
        result = compare(a, b)
        return wrap(backend_of(a if isinstance(x, Tensor) else b).asarray(result), None)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise ``{name}``: a tensor of bool, without gradient."
    return function


equal = _comparison("equal", operator.eq)
not_equal = _comparison("not_equal", operator.ne)
less = _comparison("less", operator.lt)
less_equal = _comparison("less_equal", operator.le)
greater = _comparison("greater", operator.gt)
greater_equal = _comparison("greater_equal", operator.ge)
logical_and = _comparison("logical_and", lambda a, b: (a != 0) & (b != 0))
logical_or = _comparison("logical_or", lambda a, b: (a != 0) | (b != 0))
logical_xor = _comparison("logical_xor", lambda a, b: (a != 0) ^ (b != 0))


def _predicate(name: str) -> Callable[[Any], Tensor]:
    def function(x: Any) -> Tensor:
        a = x.data if isinstance(x, Tensor) else x
        backend = backend_of(a)
        return wrap(backend.asarray(getattr(backend.xp, name)(a), a), None)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise ``{name}``: a tensor of bool, without gradient."
    return function


logical_not = _predicate("logical_not")
isnan = _predicate("isnan")
isinf = _predicate("isinf")
isfinite = _predicate("isfinite")
