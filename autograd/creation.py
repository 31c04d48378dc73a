"""Tensors of given shape and value: zeros, ones, full, arange, linspace, eye; float32 where no dtype is named."""

from __future__ import annotations

import numbers
import operator
from typing import Any

from ..backend import Device, as_dtype, backend_for
from ..backend import device as check_device
from .tensor import Tensor, tensor

Shape = int | tuple[int, ...]


def zeros(
    shape: Shape, dtype: Any = "float32", *, device: str | Device = "cpu", requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros."""
    return full(shape, 0, dtype, device=device, requires_grad=requires_grad)


def ones(shape: Shape, dtype: Any = "float32", *, device: str | Device = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return full(shape, 1, dtype, device=device, requires_grad=requires_grad)


def full(
    shape: Shape,
    fill_value: float,
    dtype: Any = "float32",
    *,
    device: str | Device = "cpu",
    requires_grad: bool = False,
) -> Tensor:
    """A tensor in which every value is ``fill_value``."""
    place = check_device(device)
    if isinstance(shape, str) or (not hasattr(shape, "__iter__") and not hasattr(shape, "__index__")):
        raise TypeError(f"shape must be an integer or a tuple of integers, got {shape!r}")
    lengths = tuple(map(operator.index, shape if hasattr(shape, "__iter__") else (shape,)))
    array = backend_for(place).empty(lengths, as_dtype(dtype), place)
    array.fill(fill_value)
    return Tensor(array, requires_grad=requires_grad)


def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """Zeros of x's shape, dtype and device."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """Ones of x's shape, dtype and device."""
    return full_like(x, 1, dtype)


def full_like(x: Any, fill_value: float, dtype: Any = None) -> Tensor:
    """``fill_value`` everywhere, in x's shape, dtype and on its device."""
    x = x if isinstance(x, Tensor) else Tensor(x)
    return full(x.shape, fill_value, x.dtype if dtype is None else dtype, device=x.device)


def arange(
    start: float, stop: float | None = None, step: float = 1, dtype: Any = None, *, device: str | Device = "cpu"
) -> Tensor:
    """``start, start + step, …`` below ``stop``; int64 of Python integers, float32 where one of them is a float."""
    if stop is None:
        start, stop = 0, start
    for name, value in (("start", start), ("stop", stop), ("step", step)):
        if not isinstance(value, numbers.Real):
            raise TypeError(f"arange: {name} must be a number, got {value!r}")
    if dtype is None:
        dtype = "float32" if any(isinstance(value, float) for value in (start, stop, step)) else "int64"
    return tensor(backend_for("cpu").xp.arange(start, stop, step, dtype), device=device)


def linspace(
    start: float, stop: float, num: int = 50, dtype: Any = "float32", *, device: str | Device = "cpu"
) -> Tensor:
    """``num`` evenly spaced values from ``start`` to ``stop``, both included."""
    return tensor(backend_for("cpu").xp.linspace(start, stop, num, dtype=dtype), device=device)


def eye(n: int, m: int | None = None, dtype: Any = "float32", *, device: str | Device = "cpu") -> Tensor:
    """Ones on the diagonal of an ``(n, m)`` matrix of zeros, square by default."""
    return tensor(backend_for("cpu").xp.eye(n, m, dtype=dtype), device=device)
