"""Elementwise arithmetic, comparison and the usual functions, each with its derivative under it.

Broadcasting follows NumPy, and so does the mixing of dtypes: Python numbers never widen. Where the array API and NumPy
spell a function differently both names are given.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ..backend import Array, backend_of
from .broadcast import unbroadcast
from .tape import op
from .tensor import Tensor, is_floating, wrap

_NUMBERS = (int, float, bool)


def _forms(x: Array, y: Array) -> tuple[Any, Any, Any, Any]:
    """Shapes and dtypes of two operands: all that the gradient of a sum needs of them."""
    try:
        return x.shape, y.shape, x.dtype, y.dtype
    except AttributeError:
        odd = y if hasattr(x, "shape") else x
        raise TypeError(f"operands must be tensors, arrays or numbers, got {type(odd).__name__}") from None


# -- arithmetic ---------------------------------------------------------------------------------------------------


@op
def add(x: Array, y: Array) -> Any:
    """``x + y``."""
    z = x + y
    if type(y) in _NUMBERS:
        return z, lambda dy: (dy,)
    if type(x) in _NUMBERS:
        return z, lambda dy: (None, dy)
    xs, ys, xt, yt = _forms(x, y)
    if xs == ys and xt == yt:
        return z, lambda dy: (dy, dy)
    return z, lambda dy: (lambda _: unbroadcast(dy, xs, xt), lambda _: unbroadcast(dy, ys, yt))


@op
def subtract(x: Array, y: Array) -> Any:
    """``x - y``."""
    z = x - y
    if type(y) in _NUMBERS:
        return z, lambda dy: (dy,)
    if type(x) in _NUMBERS:
        return z, lambda dy: (None, -dy)
    xs, ys, xt, yt = _forms(x, y)
    return z, lambda dy: (lambda _: unbroadcast(dy, xs, xt), lambda _: unbroadcast(-dy, ys, yt))


@op
def multiply(x: Array, y: Array) -> Any:
    """``x * y``."""
    z = x * y
    if type(y) in _NUMBERS:
        return z, lambda dy: (dy * y,)
    if type(x) in _NUMBERS:
        return z, lambda dy: (None, dy * x)
    xs, ys, xt, yt = _forms(x, y)
    if xs == ys and xt == yt:
        return z, lambda dy: (lambda _: dy * y, lambda _: dy * x)
    return z, lambda dy: (lambda _: unbroadcast(dy * y, xs, xt), lambda _: unbroadcast(dy * x, ys, yt))


@op
def divide(x: Array, y: Array) -> Any:
    """``x / y``."""
    z = x / y
    if type(y) in _NUMBERS:
        return z, lambda dy: (dy / y,)
    if type(x) in _NUMBERS:
        return z, lambda dy: (None, -dy * z / y)
    xs, ys, xt, yt = _forms(x, y)
    return z, lambda dy: (lambda _: unbroadcast(dy / y, xs, xt), lambda _: unbroadcast(-dy * z / y, ys, yt))


@op
def power(x: Array, y: Array) -> Any:
    """``x ** y``; the derivative with respect to ``y`` is 0 where ``x`` is 0."""
    if type(y) in _NUMBERS:
        return _power_of_number(x, y)
    xp = backend_of(y).xp
    z = x**y
    log = xp.log(xp.where(xp.equal(x, 0), 1, x)).astype(z.dtype)
    if type(x) in _NUMBERS:
        return z, lambda dy: (None, dy * z * log)
    xs, ys, xt, yt = _forms(x, y)
    slope = y * x ** xp.where(y == 0, 1, y - 1)  # 0 at y = 0, also where x is 0
    return z, lambda dy: (lambda _: unbroadcast(dy * slope, xs, xt), lambda _: unbroadcast(dy * z * log, ys, yt))


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


@op
def maximum(x: Array, y: Array) -> Any:
    """The larger of two values; equal values share the gradient equally. NaN where either is NaN."""
    return _extremum(x, y, "maximum")


@op
def minimum(x: Array, y: Array) -> Any:
    """The smaller of two values; equal values share the gradient equally. NaN where either is NaN."""
    return _extremum(x, y, "minimum")


def _extremum(x: Array, y: Array, name: str) -> Any:
    xp = backend_of(y if type(x) in _NUMBERS else x).xp
    z = getattr(xp, name)(x, y)
    dtype = z.dtype

    def share(mine: Array, other: Array) -> Array:
        return (mine == z).astype(dtype) * (1 - 0.5 * (mine == other).astype(dtype))

    if type(y) in _NUMBERS:
        return z, lambda dy: (dy * share(x, y),)
    if type(x) in _NUMBERS:
        return z, lambda dy: (None, dy * share(y, x))
    xs, ys, xt, yt = _forms(x, y)
    return z, lambda dy: (
        lambda _: unbroadcast(dy * share(x, y), xs, xt),
        lambda _: unbroadcast(dy * share(y, x), ys, yt),
    )


@op
def clip(x: Array, min: float | None = None, max: float | None = None) -> Any:
    """``x`` moved into ``[min, max]``; the gradient passes where ``x`` was inside, the bounds included."""
    xp = backend_of(x).xp
    z = xp.clip(x, min, max)
    return z, lambda dy: (dy * (x == z).astype(dy.dtype),)


@op
def where(condition: Array, x: Array, y: Array) -> Any:
    """``x`` where ``condition`` holds, else ``y``."""
    xp = backend_of(condition).xp
    z = xp.where(condition, x, y)
    xs, xt = getattr(x, "shape", ()), getattr(x, "dtype", z.dtype)
    ys, yt = getattr(y, "shape", ()), getattr(y, "dtype", z.dtype)
    return z, lambda dy: (
        None,
        lambda _: unbroadcast(xp.where(condition, dy, dy.dtype.type(0)), xs, xt),
        lambda _: unbroadcast(xp.where(condition, dy.dtype.type(0), dy), ys, yt),
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
