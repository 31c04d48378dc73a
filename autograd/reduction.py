"""Reductions over axes: sum, mean, variance, extrema; the gradient is spread back over what was reduced."""

from __future__ import annotations

import math
from typing import Any

from ..backend import Array, backend_of
from ..kernels import reduce
from .axes import Axis, all_axes
from .elementwise import sqrt
from .tape import op
from .tensor import Tensor, is_floating, wrap


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _floating(x: Array) -> Array:
    """Integers and bools as float32, of which a mean can be taken."""
    return x.astype("float32") if x.dtype.kind in "biu" else x


@op
def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum over ``axis``, over everything by default; 16-bit floats are added up in float32."""
    axes = all_axes(axis, x.ndim)
    xp, shape, kept = backend_of(x).xp, x.shape, _kept(x.shape, axes)
    y = _accumulate(x, axes, keepdims)
    return y, lambda dy: (xp.broadcast_to(dy.reshape(kept), shape),)


def _accumulate(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    if _is_reduced_by_kernels(x):
        return reduce("sum", x, axes, keepdims)
    if x.dtype.itemsize == 2 and x.dtype.kind in "fV":
        return x.sum(axis=axes, keepdims=keepdims, dtype="float32").astype(x.dtype)
    return x.sum(axis=axes, keepdims=keepdims)


_SMALL = 1 << 13  # elements; on the CPU the array library's own reduction starts sooner, and its chains are short


def _is_reduced_by_kernels(x: Array) -> bool:
    """Whether an array goes to :func:`kernels.reduce`: floating, and on a CUDA device or long."""
    return (x.size > _SMALL or backend_of(x).runs_cuda) and is_floating(x.dtype)


@op
def mean(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """The mean over ``axis``; of nothing it is NaN."""
    axes = all_axes(axis, x.ndim)
    xp, shape, kept = backend_of(x).xp, x.shape, _kept(x.shape, axes)
    count = math.prod(shape[a] for a in axes)
    x = _floating(x)
    scale = 1.0 / count if count else math.nan
    if _is_reduced_by_kernels(x):
        y = reduce("mean", x, axes, keepdims)
    elif x.dtype.itemsize == 2:
        y = (x.sum(axis=axes, keepdims=keepdims, dtype="float32") * scale).astype(x.dtype)
    else:
        y = x.sum(axis=axes, keepdims=keepdims) * scale
    return y, lambda dy: (xp.broadcast_to((dy * scale).reshape(kept), shape),)


@op
def _var(x: Array, axis: Axis, keepdims: bool, correction: float) -> Any:
    axes = all_axes(axis, x.ndim)
    shape = x.shape
    count = math.prod(shape[a] for a in axes)
    if count - correction <= 0:
        raise ValueError(f"var: correction must be below the number of values, got correction={correction}, n={count}")
    x = _floating(x)
    wide = x.astype("float32") if x.dtype.itemsize == 2 else x
    centred = wide - wide.sum(axis=axes, keepdims=True) * (1.0 / count)
    y = (centred * centred).sum(axis=axes, keepdims=True) * (1.0 / (count - correction))
    kept, dtype = y.shape, x.dtype
    if not keepdims:
        y = y.reshape(tuple(n for i, n in enumerate(shape) if i not in axes))
    slope = 2.0 / (count - correction)
    return y.astype(dtype), lambda dy: ((centred * (dy.reshape(kept) * slope)).astype(dtype),)


def var(
    x: Any, axis: Axis = None, keepdims: bool = False, correction: float | None = None, *, ddof: float | None = None
) -> Tensor:
    """The mean squared distance from the mean over ``axis``; divides by ``n - correction``, NumPy's 0 by default.

    ``ddof`` is NumPy's other name of ``correction``.

    Raises:
        TypeError: both names are given.
        ValueError: there are no more than ``correction`` values (NumPy gives NaN).
    """
    return _var(x, axis, keepdims, _correction("var", correction, ddof))


def _correction(name: str, correction: float | None, ddof: float | None) -> float:
    if correction is not None and ddof is not None:
        raise TypeError(f"{name}: ddof is another name of correction, got correction={correction} and ddof={ddof}")
    return next((value for value in (correction, ddof) if value is not None), 0)


def std(
    x: Any, axis: Axis = None, keepdims: bool = False, correction: float | None = None, *, ddof: float | None = None
) -> Tensor:
    """The square root of :func:`var`."""
    return sqrt(_var(x, axis, keepdims, _correction("std", correction, ddof)))


@op
def max(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest value over ``axis``; equal values share the gradient equally."""
    return _extreme(x, axis, keepdims, "max")


@op
def min(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest value over ``axis``; equal values share the gradient equally."""
    return _extreme(x, axis, keepdims, "min")


def _extreme(x: Array, axis: Axis, keepdims: bool, name: str) -> Any:
    axes = all_axes(axis, x.ndim)
    if 0 in (x.shape[a] for a in axes):
        raise ValueError(f"{name}: an axis of length 0 has no {name}imum, got shape {x.shape}, axis={axis}")
    by_kernel = backend_of(x).runs_cuda and is_floating(x.dtype)
    y = reduce(name, x, axes, keepdims=True) if by_kernel else getattr(x, name)(axis=axes, keepdims=True)
    kept = _kept(x.shape, axes)
    result = y if keepdims else y.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))

    def backward(dy: Array) -> Any:
        hit = x == y
        ties = hit.sum(axis=axes, keepdims=True, dtype="float64" if x.dtype.itemsize == 8 else "float32")
        return (hit * (dy.reshape(kept) / ties).astype(dy.dtype),)

    return result, backward


@op
def prod(x: Array, axis: int | None = None, keepdims: bool = False) -> Any:
    """The product over one axis or over everything; right also where factors are 0."""
    if isinstance(axis, tuple):
        raise TypeError(f"prod: axis must be an int or None, got {axis}")
    xp = backend_of(x).xp
    axes = all_axes(axis, x.ndim)
    kept, shape = _kept(x.shape, axes), x.shape
    y = x.prod(axis=axis, keepdims=keepdims)

    def backward(dy: Array) -> Any:
        line = x.reshape(1, -1) if axis is None else xp.moveaxis(x, axis, -1)
        ones = xp.ones_like(line[..., :1])
        before = xp.concatenate([ones, xp.cumprod(line[..., :-1], axis=-1)], axis=-1)
        after = xp.concatenate([xp.cumprod(line[..., :0:-1], axis=-1)[..., ::-1], ones], axis=-1)
        others = before * after
        others = others.reshape(shape) if axis is None else xp.moveaxis(others, -1, axis)
        return (dy.reshape(kept) * others,)

    return y, backward


@op
def cumsum(x: Array, axis: int | None = None) -> Any:
    """The running sum along ``axis``; without an axis of all values as one row."""
    xp, shape = backend_of(x).xp, x.shape
    along = -1 if axis is None else axis
    y = xp.cumsum(x.reshape(-1) if axis is None else x, axis=along)
    return y, lambda dy: (xp.flip(xp.cumsum(xp.flip(dy, axis=along), axis=along), axis=along).reshape(shape),)


cumulative_sum = cumsum


@op
def logsumexp(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` over ``axis`` without overflow; -inf where every value is -inf."""
    x = _floating(x)
    xp = backend_of(x).xp
    axes = all_axes(axis, x.ndim)
    if backend_of(x).runs_cuda:
        return _logsumexp_on_cuda(x, axes, keepdims)
    top = x.max(axis=axes, keepdims=True)
    top = xp.where(xp.isfinite(top), top, x.dtype.type(0))
    e = xp.exp(x - top)
    total = e.sum(axis=axes, keepdims=True, dtype="float32" if x.dtype.itemsize == 2 else None)
    nothing = total == 0  # every value is -inf
    total = xp.where(nothing, 1, total)
    with_axes = xp.where(nothing, -math.inf, xp.log(total) + top).astype(x.dtype)
    kept = with_axes.shape
    y = with_axes if keepdims else with_axes.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))
    return y, lambda dy: ((e * (dy.reshape(kept) / total)).astype(x.dtype),)


def _logsumexp_on_cuda(x: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The same in one kernel, which leaves nothing behind but its result."""
    y = reduce("logsumexp", x, axes, keepdims)
    kept = _kept(x.shape, axes)

    def backward(dy: Array) -> Any:
        xp = backend_of(x).xp
        top = y.reshape(kept)
        top = xp.where(xp.isfinite(top), top, x.dtype.type(0))  # -inf: every value is -inf, and has no share
        return ((xp.exp(x - top) * dy.reshape(kept)).astype(x.dtype, copy=False),)

    return y, backward


def _index(name: str, by_kernel: bool = False) -> Any:
    def function(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
        a = x.data if isinstance(x, Tensor) else x
        backend = backend_of(a)
        if by_kernel and backend.runs_cuda and is_floating(a.dtype):
            return wrap(reduce(name, a, axis, keepdims), None)
        return wrap(backend.asarray(getattr(a, name)(axis=axis, keepdims=keepdims), a), None)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"``{name}`` over ``axis``: a tensor of int64 or bool, without gradient."
    return function


argmax = _index("argmax", by_kernel=True)
argmin = _index("argmin", by_kernel=True)
any = _index("any")
all = _index("all")
