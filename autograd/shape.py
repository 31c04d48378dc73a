"""Operations that move values and do not change them; the gradient moves back."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..backend import Array, Device, backend_for, backend_of, in_format
from ..backend import device as check_device
from .axes import one_axis
from .broadcast import unbroadcast
from .tape import op, require_arrays
from .tensor import Tensor


@op
def reshape(x: Array, shape: int | tuple[int, ...]) -> Any:
    """The same values in another shape, row by row; one length may be -1."""
    before = x.shape
    return x.reshape(shape), lambda dy: (dy.reshape(before),)


@op
def permute_dims(x: Array, axes: tuple[int, ...] | None = None) -> Any:
    """The axes in another order, reversed by default."""
    if axes is None:
        axes = tuple(reversed(range(x.ndim)))
    y = x.transpose(axes)  # checks the axes
    back = [0] * len(axes)
    for new, old in enumerate(axes):
        back[old] = new
    return y, lambda dy: (dy.transpose(back),)


transpose = permute_dims


def matrix_transpose(x: Any) -> Tensor:
    """The last two axes exchanged."""
    if not isinstance(x, Tensor):
        require_arrays("matrix_transpose", x=x)
    ndim = x.ndim
    if ndim < 2:
        raise ValueError(f"matrix_transpose: x must have at least 2 dimensions, got {ndim}")
    return permute_dims(x, (*range(ndim - 2), ndim - 1, ndim - 2))


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    if not isinstance(x, Tensor):
        require_arrays("swapaxes", x=x)
    axes = list(range(x.ndim))
    i, j = one_axis(axis1, x.ndim), one_axis(axis2, x.ndim)
    axes[i], axes[j] = j, i
    return permute_dims(x, tuple(axes))


def moveaxis(x: Any, source: int, destination: int) -> Tensor:
    """One axis moved to another place, the others in their order."""
    if not isinstance(x, Tensor):
        require_arrays("moveaxis", x=x)
    axes = list(range(x.ndim))
    axes.insert(one_axis(destination, x.ndim), axes.pop(one_axis(source, x.ndim)))
    return permute_dims(x, tuple(axes))


@op
def expand_dims(x: Array, axis: int) -> Any:
    """A new axis of length 1."""
    before = x.shape
    return backend_of(x).xp.expand_dims(x, axis), lambda dy: (dy.reshape(before),)


@op
def squeeze(x: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """Without axes of length 1: those named, or all."""
    before = x.shape
    return x.squeeze(axis), lambda dy: (dy.reshape(before),)


def ravel(x: Any) -> Tensor:
    """All values in one row."""
    return reshape(x, (-1,))


@op
def broadcast_to(x: Array, shape: tuple[int, ...]) -> Any:
    """Repeated to ``shape`` by the broadcasting rule, without a copy."""
    before, dtype = x.shape, x.dtype
    return backend_of(x).xp.broadcast_to(x, shape), lambda dy: (unbroadcast(dy, before, dtype),)


@op
def flip(x: Array, axis: int | tuple[int, ...] | None = None) -> Any:
    """In reverse order along ``axis``, along all by default."""
    xp = backend_of(x).xp
    return xp.flip(x, axis), lambda dy: (xp.flip(dy, axis),)


@op
def roll(x: Array, shift: int | tuple[int, ...], axis: int | tuple[int, ...] | None = None) -> Any:
    """Moved by ``shift`` places around ``axis``; without an axis as one row."""
    xp = backend_of(x).xp
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -shift
    return xp.roll(x, shift, axis), lambda dy: (xp.roll(dy, back, axis),)


@op
def repeat(x: Array, repeats: int, axis: int) -> Any:
    """Each value ``repeats`` times along ``axis``."""
    xp = backend_of(x).xp
    along = one_axis(axis, x.ndim)
    if not isinstance(repeats, int):
        raise TypeError(f"repeat: repeats must be one int for all values, got {repeats!r}")
    split = (*x.shape[: along + 1], repeats, *x.shape[along + 1 :])
    return xp.repeat(x, repeats, along), lambda dy: (dy.reshape(split).sum(axis=along + 1),)


@op
def tril(x: Array, k: int = 0) -> Any:
    """The last two axes' lower triangle, up to the ``k``-th diagonal; 0 above."""
    xp = backend_of(x).xp
    return xp.tril(x, k), lambda dy: (xp.tril(dy, k),)


@op
def triu(x: Array, k: int = 0) -> Any:
    """The last two axes' upper triangle, from the ``k``-th diagonal on; 0 below."""
    xp = backend_of(x).xp
    return xp.triu(x, k), lambda dy: (xp.triu(dy, k),)


@op
def _concat(axis: int, *arrays: Array) -> Any:
    xp = backend_of(arrays[0]).xp
    y = xp.concatenate(arrays, axis=axis)
    along = axis % arrays[0].ndim
    ends, end = [], 0
    for array in arrays:
        end += array.shape[along]
        ends.append(end)
    dtypes = [array.dtype for array in arrays]

    def backward(dy: Array) -> Any:
        parts, start = [], 0
        for stop, dtype in zip(ends, dtypes, strict=True):
            part = dy[(slice(None),) * along + (slice(start, stop),)]
            parts.append(part if part.dtype == dtype else part.astype(dtype))
            start = stop
        return (None, *parts)

    return y, backward


def concat(tensors: Sequence[Any], axis: int | None = 0) -> Tensor:
    """Tensors one after another along an axis they have; ``axis=None`` puts all values in one row."""
    _check_sequence("concat", tensors)
    if axis is None:
        return _concat(0, *(ravel(t) for t in tensors))
    return _concat(axis, *tensors)


concatenate = concat


def _check_sequence(caller: str, tensors: Sequence[Any]) -> None:
    if isinstance(tensors, str) or not hasattr(tensors, "__len__"):
        raise TypeError(f"{caller}: tensors must be a list of tensors or arrays, got {type(tensors).__name__}")
    if len(tensors) == 0:
        raise ValueError(f"{caller}: tensors must hold at least one tensor, got none")
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            require_arrays(caller, **{f"tensors[{i}]": t})


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape one after another along a new axis."""
    _check_sequence("stack", tensors)
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) > 1:
        raise ValueError(f"stack: all tensors must have one shape, got {sorted(shapes)}")
    return _concat(axis, *(expand_dims(t, axis) for t in tensors))


@op
def _split(x: Array, ends: tuple[int, ...], axis: int) -> Any:
    xp, shape, dtype = backend_of(x).xp, x.shape, x.dtype
    along = axis % x.ndim
    bounds = (0, *ends, shape[along])
    places = [(slice(None),) * along + (slice(a, b),) for a, b in pairwise(bounds)]

    def backward(*dys: Array | None) -> Any:
        dx = xp.zeros(shape, dtype)
        for place, dy in zip(places, dys, strict=True):
            if dy is not None:
                dx[place] = dy
        return (dx,)

    return tuple(x[place] for place in places), backward


def split(x: Any, sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Cut along ``axis`` into ``sections`` equal parts, or at the given places."""
    if not isinstance(x, Tensor):
        require_arrays("split", x=x)
    axis = one_axis(axis, x.ndim)
    length = x.shape[axis]
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ValueError(f"split: sections must divide the axis, got sections={sections}, length {length}")
        step = length // sections
        return _split(x, tuple(range(step, length, step)) if step else (0,) * (sections - 1), axis)
    if isinstance(sections, str) or not hasattr(sections, "__iter__"):
        raise TypeError(f"split: sections must be an integer or a list of places, got {sections!r}")
    return _split(x, tuple(map(operator.index, sections)), axis)


@op
def to(x: Array, device: str | Device) -> Any:
    """On another device; the gradient moves back. The same array where it is there already."""
    place = check_device(device)
    backend = backend_of(x)
    here = backend.device_of(x)
    if place == here:
        return x, lambda dy: (dy,)

    def move(array: Array, place: Device) -> Array:
        return backend_for(place).from_numpy(backend_of(array).to_numpy(array), place)

    return move(x, place), lambda dy: (move(dy, here),)


@op
def _in_format(x: Array, channels_last: bool) -> Any:
    return in_format(x, channels_last), lambda dy: (dy,)


def channels_last(x: Any) -> Tensor:
    """The same values and shape ``(N, C, ...)``, with the channels of a pixel beside each other in memory.

    Operations on images keep the format of their input, and many are faster in this one.

    Raises:
        ValueError: ``x`` has fewer than 3 axes.
    """
    require_arrays("channels_last", x=x)
    if x.ndim < 3:
        raise ValueError(f"channels_last: x must have shape (N, C, ...) with 3 axes or more, got {tuple(x.shape)}")
    y: Tensor = _in_format(x, True)
    return y


def contiguous(x: Any) -> Tensor:
    """The same values and shape, with the last axis running fastest in memory; nothing is copied if it is so."""
    require_arrays("contiguous", x=x)
    y: Tensor = _in_format(x, False)
    return y
