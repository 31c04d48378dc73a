"""Indexing: basic slices, integer and boolean arrays; the gradient is added up where an element was taken twice."""

from __future__ import annotations

from typing import Any

from ..backend import Array, backend_of
from .axes import one_axis
from .tape import is_recording, note_write, op
from .tensor import LEAF, Tensor

_BASIC = (int, slice, type(None), type(Ellipsis))


def _plain(index: Any) -> Any:
    """An index with its tensors replaced by their arrays."""
    if isinstance(index, tuple):
        return tuple(_plain(i) for i in index)
    return index.data if isinstance(index, Tensor) else index


@op
def _getitem(x: Array, index: Any) -> Any:
    backend = backend_of(x)
    shape, dtype = x.shape, x.dtype
    basic = isinstance(index, _BASIC) or (isinstance(index, tuple) and all(isinstance(i, _BASIC) for i in index))

    def backward(dy: Array) -> Any:
        dx = backend.xp.zeros(shape, dtype)
        if basic:
            dx[index] = dy
        else:
            backend.scatter_add(dx, index, dy)
        return (dx,)

    return x[index], backward


def getitem(x: Tensor, index: Any) -> Tensor:
    """``x[index]`` with NumPy's rules."""
    return _getitem(x, _plain(index))


def setitem(x: Tensor, index: Any, value: Any) -> None:
    """``x[index] = value`` in place, for tensors off the tape; a leaf needs ``no_grad``.

    Raises:
        RuntimeError: the tensor was computed with a gradient in view, or is a leaf that wants one while recording; or
            ``value`` is on the tape, which would lose its gradient here.
    """
    if x._edge is not None and (x._edge is not LEAF or is_recording()):
        raise RuntimeError(
            "a tensor on the tape cannot be written in place: use lamella.where, or write under no_grad() "
            "if it is a leaf"
        )
    if isinstance(value, Tensor) and value._edge is not None and is_recording():
        raise RuntimeError(
            "a value on the tape cannot be written in place, its gradient would be lost: use lamella.where, concat or "
            "stack, or write value.detach()"
        )
    x.data[_plain(index)] = _plain(value)
    note_write(x.data)


@op
def take(x: Array, indices: Array, axis: int | None = None) -> Any:
    """``x[..., indices, ...]`` along ``axis``; without an axis ``x`` is read as one row. As NumPy's.

    NumPy raises IndexError for an index outside ``-n … n - 1``; CuPy wraps it round.
    """
    backend = backend_of(x)
    shape, dtype = x.shape, x.dtype
    row = x.reshape(-1) if axis is None else x
    place = (slice(None),) * (0 if axis is None else one_axis(axis, x.ndim)) + (indices,)

    def backward(dy: Array) -> Any:
        dx = backend.xp.zeros(row.shape, dtype)
        backend.scatter_add(dx, place, dy)
        return (dx.reshape(shape),)

    return row[place], backward


@op
def take_along_axis(x: Array, indices: Array, axis: int) -> Any:
    """One element for each index along ``axis``; along the other axes ``indices`` has x's length, or 1. As NumPy's."""
    backend = backend_of(x)
    xp, shape, dtype = backend.xp, x.shape, x.dtype
    along = one_axis(axis, x.ndim)
    if indices.ndim != x.ndim:
        raise ValueError(f"take_along_axis: indices must have x's {x.ndim} dimensions, got {indices.ndim}")
    place = tuple(
        indices if i == along else xp.arange(n).reshape([-1 if j == i else 1 for j in range(x.ndim)])
        for i, n in enumerate(shape)
    )

    def backward(dy: Array) -> Any:
        dx = xp.zeros(shape, dtype)
        backend.scatter_add(dx, place, dy)
        return (dx,)

    return x[place], backward
