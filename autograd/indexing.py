"""Indexing: basic slices, integer and boolean arrays; the gradient is added up where an element was taken twice."""

from __future__ import annotations

from typing import Any

from ..backend import Array, backend_of
from .tape import note_write, op
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
        RuntimeError: the tensor was computed with a gradient in view, or is a leaf that wants one while recording.
    """
    from .tape import is_recording

    if x._edge is not None and (x._edge is not LEAF or is_recording()):
        raise RuntimeError(
            "a tensor on the tape cannot be written in place: use lamella.where, or write under no_grad() "
            "if it is a leaf"
        )
    x.data[_plain(index)] = _plain(value)
    note_write(x.data)


@op
def take(x: Array, indices: Array, axis: int = 0) -> Any:
    """``x[..., indices, ...]`` along ``axis``, the indices checked to be in ``-n … n - 1``."""
    backend = backend_of(x)
    xp, shape, dtype = backend.xp, x.shape, x.dtype
    along = axis % x.ndim
    place = (slice(None),) * along + (indices,)

    def backward(dy: Array) -> Any:
        dx = xp.zeros(shape, dtype)
        backend.scatter_add(dx, place, dy)
        return (dx,)

    return x[place], backward


@op
def take_along_axis(x: Array, indices: Array, axis: int) -> Any:
    """One element for each index along ``axis``: the gradient of a picked element goes back to it."""
    backend = backend_of(x)
    xp, shape, dtype = backend.xp, x.shape, x.dtype
    along = axis % x.ndim
    place = tuple(
        indices if i == along else xp.arange(n).reshape([-1 if j == i else 1 for j in range(x.ndim)])
        for i, n in enumerate(indices.shape)
    )

    def backward(dy: Array) -> Any:
        dx = xp.zeros(shape, dtype)
        backend.scatter_add(dx, place, dy)
        return (dx,)

    return x[place], backward
