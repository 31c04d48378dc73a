"""Elementwise arithmetic, comparison and the usual functions, each with its derivative under it.

Broadcasting follows NumPy, and so does the mixing of dtypes: Python numbers never widen. Where the array API and NumPy
spell a function differently both names are given.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable
from typing import Any

from ..backend import Array, as_dtype, backend_of
from .tape import binary_op, broadcasting_op, op, require_one_device
from .tensor import Tensor, is_floating, wrap

_PYTHON = (int, float, bool)


def _module(*values: Any) -> Any:
    """The array module of the first array among numbers, NumPy's scalars and arrays."""
    for value in values:
        if hasattr(value, "strides") and hasattr(value, "flags") and hasattr(value, "__setitem__"):
            return backend_of(value).xp
    return backend_of(values[0]).xp


# -- arithmetic ---------------------------------------------------------------------------------------------------


add = binary_op("add", "x + y", operator.add, lambda dz, x, y: dz, lambda dz, x, y: dz, saves=False)
subtract = binary_op("subtract", "x - y", operator.sub, lambda dz, x, y: dz, lambda dz, x, y: -dz, saves=False)
multiply = binary_op("multiply", "x * y", operator.mul, lambda dz, x, y: dz * y, lambda dz, x, y: dz * x)
divide = binary_op("divide", "x / y", operator.truediv, lambda dz, x, y: dz / y, lambda dz, x, y: -dz * (x / y) / y)


@broadcasting_op
def power(x: Array, y: Array) -> Any:
    """``x ** y``; the derivative with respect to ``y`` is 0 where ``x`` is 0."""
    if type(y) in _PYTHON:
        return _power_of_number(x, y)
    if isinstance(y, numbers.Real):  # a NumPy scalar; as a Python number it cannot widen the result
        return _power_of_number(x, y.item())  # type: ignore[attr-defined]
    xp = _module(y, x)
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
    xp = _module(x, y)
    z = getattr(xp, name)(x, y)

    def share(dy: Array, mine: Array) -> Array:
        tie = xp.equal(x, y).astype(dy.dtype)
        return dy * (xp.equal(mine, z).astype(dy.dtype) * (1 - 0.5 * tie))

    return z, (lambda dy, out: share(dy, x), lambda dy, out: share(dy, y))


@broadcasting_op
def clip(x: Array, min: Array | float | None = None, max: Array | float | None = None) -> Any:
    """``x`` moved into ``[min, max]``; the gradient goes to ``x`` inside, bounds included, outside to the bound."""
    xp = backend_of(x).xp
    z = xp.clip(x, min, max)

    def above() -> Any:
        return False if max is None else (x if min is None else xp.maximum(x, min)) > max

    def below() -> Any:
        return (x < min) & xp.logical_not(above())

    return z, (
        lambda dy, out: dy * ((x == z) & xp.logical_not(above())).astype(dy.dtype),
        lambda dy, out: dy * below().astype(dy.dtype),
        lambda dy, out: dy * above().astype(dy.dtype),
    )


@broadcasting_op
def where(condition: Array, x: Array, y: Array) -> Any:
    """``x`` where ``condition`` holds, else ``y``."""
    xp = _module(condition, x, y)
    z = xp.where(condition, x, y)
    if z.dtype == "float64" and type(x) in _PYTHON and type(y) in _PYTHON:
        z = z.astype("float32")  # Python's floats are float32 wherever they become an array
    zero = z.dtype.type(0)
    return z, (
        None,
        lambda dy, out: xp.where(condition, dy, zero),
        lambda dy, out: xp.where(condition, zero, dy),
    )


@op
def _astype(x: Array, dtype: Any) -> Any:
    before = x.dtype
    y = x.astype(as_dtype(dtype))
    return y, lambda dy: (dy.astype(before),)


def astype(x: Any, dtype: Any) -> Tensor:
    """A copy in another dtype. The gradient comes back in the first; through integers and bools none passes."""
    y = _astype(x, dtype)
    return y if is_floating(y.dtype) else y.detach()


@broadcasting_op
def floor_divide(x: Array, y: Array) -> Any:
    """``x // y``, the next integer below the quotient; its slope is 0."""
    return x // y, lambda dy: (dy * 0, dy * 0)


@broadcasting_op
def remainder(x: Array, y: Array) -> Any:
    """``x % y = x - y * floor(x / y)``, with the sign of ``y``."""
    return x % y, (lambda dy, out: dy, lambda dy, out: -dy * (x // y))


# -- functions of one variable --------------------------------------------------------------------------------------


Slope = Callable[[Any, Array], Array]


def _function(
    name: str, formula: str, *, of_x: Slope | None = None, of_y: Slope | None = None
) -> Callable[..., Tensor]:
    """An elementwise function of the array module; dy/dx is ``of_x(xp, x)`` or ``of_y(xp, y)``, else 0 everywhere.

    What the slope is not made of is not kept until backward.
    """
    slope = of_x or of_y

    def function(x: Array) -> Any:
        xp = backend_of(x).xp
        y = getattr(xp, name)(x)
        if slope is None:
            return y, lambda dy: (dy * 0,)
        kept = x if of_x else y
        return y, lambda dy: (dy * slope(xp, kept),)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{formula}``, elementwise."
    return op(function)


exp = _function("exp", "e ** x", of_y=lambda xp, y: y)
exp2 = _function("exp2", "2 ** x", of_y=lambda xp, y: y * 0.6931471805599453)
expm1 = _function("expm1", "e ** x - 1", of_y=lambda xp, y: y + 1)
log = _function("log", "ln x", of_x=lambda xp, x: 1 / x)
log2 = _function("log2", "log2 x", of_x=lambda xp, x: 1.4426950408889634 / x)
log10 = _function("log10", "log10 x", of_x=lambda xp, x: 0.4342944819032518 / x)
log1p = _function("log1p", "ln(1 + x)", of_x=lambda xp, x: 1 / (1 + x))
sqrt = _function("sqrt", "x ** 0.5", of_y=lambda xp, y: 0.5 / y)
square = _function("square", "x * x", of_x=lambda xp, x: 2 * x)
reciprocal = _function("reciprocal", "1 / x", of_y=lambda xp, y: -y * y)
sin = _function("sin", "sin x", of_x=lambda xp, x: xp.cos(x))
cos = _function("cos", "cos x", of_x=lambda xp, x: -xp.sin(x))
tan = _function("tan", "tan x", of_y=lambda xp, y: 1 + y * y)
arcsin = _function("arcsin", "the angle whose sine is x", of_x=lambda xp, x: 1 / xp.sqrt(1 - x * x))
arccos = _function("arccos", "the angle whose cosine is x", of_x=lambda xp, x: -1 / xp.sqrt(1 - x * x))
arctan = _function("arctan", "the angle whose tangent is x", of_x=lambda xp, x: 1 / (1 + x * x))
sinh = _function("sinh", "(e ** x - e ** -x) / 2", of_x=lambda xp, x: xp.cosh(x))
cosh = _function("cosh", "(e ** x + e ** -x) / 2", of_x=lambda xp, x: xp.sinh(x))
tanh = _function("tanh", "(e ** x - e ** -x) / (e ** x + e ** -x)", of_y=lambda xp, y: 1 - y * y)
arcsinh = _function("arcsinh", "ln(x + (x * x + 1) ** 0.5)", of_x=lambda xp, x: 1 / xp.sqrt(x * x + 1))
arccosh = _function("arccosh", "ln(x + (x * x - 1) ** 0.5)", of_x=lambda xp, x: 1 / xp.sqrt(x * x - 1))
arctanh = _function("arctanh", "ln((1 + x) / (1 - x)) / 2", of_x=lambda xp, x: 1 / (1 - x * x))
absolute = _function("absolute", "|x|, with slope 0 at 0", of_x=lambda xp, x: xp.sign(x))
sign = _function("sign", "-1, 0 or 1")
floor = _function("floor", "the next integer below")
ceil = _function("ceil", "the next integer above")
trunc = _function("trunc", "the next integer towards 0")
rint = _function("rint", "the nearest integer, halves to even")


@op
def _round(x: Array, decimals: int) -> Any:
    return backend_of(x).xp.round(x, decimals), lambda dy: (dy * 0,)


def round(x: Any, decimals: int = 0) -> Tensor:
    """``x`` to ``decimals`` places after the point, halves to even, elementwise; negative ones count before it."""
    decimals = operator.index(decimals)
    return _round(x, decimals) if decimals else rint(x)


# The array API's other spellings.
abs = absolute
pow = power
asin, acos, atan, asinh, acosh, atanh = arcsin, arccos, arctan, arcsinh, arccosh, arctanh


# -- comparison: tensors of bool, off the tape ------------------------------------------------------------------------


def _operand(x: Any) -> Any:
    """A tensor's array; a 0-d host array, which NumPy makes of its scalars before it compares, as a number."""
    if isinstance(x, Tensor):
        return x.data
    return x.item() if getattr(x, "shape", None) == () else x


def _comparison(name: str, compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Tensor]:
    def function(x: Any, y: Any) -> Tensor:
        require_one_device((x, y))
        a, b = _operand(x), _operand(y)
        result = compare(a, b)
        return wrap(backend_of(a if hasattr(a, "strides") else b).asarray(result), None)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise ``{name}``, by NumPy's rules: a tensor without gradient."
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
bitwise_and = _comparison("bitwise_and", operator.and_)
bitwise_or = _comparison("bitwise_or", operator.or_)
bitwise_xor = _comparison("bitwise_xor", operator.xor)


def _predicate(name: str) -> Callable[[Any], Tensor]:
    def function(x: Any) -> Tensor:
        a = x.data if isinstance(x, Tensor) else x
        backend = backend_of(a)
        return wrap(backend.asarray(getattr(backend.xp, name)(a), a), None)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Elementwise ``{name}``, by NumPy's rules: a tensor without gradient."
    return function


logical_not = _predicate("logical_not")
isnan = _predicate("isnan")
isinf = _predicate("isinf")
isfinite = _predicate("isfinite")
bitwise_invert = _predicate("invert")
