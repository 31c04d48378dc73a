"""Axes as the caller names them, made non-negative."""

from __future__ import annotations

import operator

Axis = int | tuple[int, ...] | list[int] | None


def one_axis(axis: int, ndim: int) -> int:
    """The axis counted from 0; raises where there is no such axis (``%`` would wrap it round)."""
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis must be in {-ndim} … {ndim - 1} for an array of {ndim} dimensions, got {axis}")
    return axis % ndim


def all_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes counted from 0, all of them for None; raises for what is out of range or named twice."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(one_axis(a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis must not name an axis twice, got {axis}")
    return axes
