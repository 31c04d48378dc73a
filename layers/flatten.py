"""Flatten and Unflatten: several axes as one, and one as several."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..autograd import Tensor
from ..autograd.tape import require_arrays
from .module import Module


def flatten(x: Any, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """The axes from ``start_axis`` to ``end_axis``, both included, as one; PyTorch calls them start_dim, end_dim.

    Raises:
        ValueError: an axis is out of range, or the end stands before the start.
    """
    x = _tensor("flatten", x)
    shape = x.shape
    start, end = _axis("flatten", "start_axis", start_axis, shape), _axis("flatten", "end_axis", end_axis, shape)
    if end < start:
        raise ValueError(f"flatten: end_axis must not stand before start_axis, got {end_axis} and {start_axis}")
    return x.reshape(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


class Flatten(Module):
    """All axes but the first as one: ``(N, C, H, W)`` becomes ``(N, C*H*W)``, between convolutions and Linear.

    Args:
        start_axis, end_axis: the first and the last axis of those that become one.
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis = _integer("Flatten", "start_axis", start_axis)
        self.end_axis = _integer("Flatten", "end_axis", end_axis)

    def forward(self, x: Any) -> Tensor:
        return flatten(x, self.start_axis, self.end_axis)

    def extra_repr(self) -> str:
        return f"start_axis={self.start_axis}, end_axis={self.end_axis}"


def unflatten(x: Any, axis: int, unflattened_size: tuple[int, ...]) -> Tensor:
    """One axis as several, the reverse of :func:`flatten`; one length may be -1.

    Raises:
        ValueError: the lengths do not multiply to that of the axis.
    """
    x, sizes = _tensor("unflatten", x), _sizes("unflatten", unflattened_size)
    shape = x.shape
    at = _axis("unflatten", "axis", axis, shape)
    known = math.prod(size for size in sizes if size != -1)
    found = sizes
    if sizes.count(-1) == 1 and known > 0:
        found = tuple(shape[at] // known if size == -1 else size for size in sizes)
    if not sizes or min(found) < 0 or math.prod(found) != shape[at]:
        raise ValueError(
            f"unflatten: unflattened_size must multiply to the {shape[at]} values of axis {axis}, got {sizes}"
        )
    return x.reshape(*shape[:at], *found, *shape[at + 1 :])


class Unflatten(Module):
    """One axis as several: ``Unflatten(1, (8, 7, 7))`` makes ``(N, 392)`` to ``(N, 8, 7, 7)``, in decoders.

    Args:
        axis: the axis to cut up.
        unflattened_size: the new lengths; one may be -1.
    """

    def __init__(self, axis: int, unflattened_size: tuple[int, ...]) -> None:
        self.axis = _integer("Unflatten", "axis", axis)
        self.unflattened_size = _sizes("Unflatten", unflattened_size)

    def forward(self, x: Any) -> Tensor:
        return unflatten(x, self.axis, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, unflattened_size={self.unflattened_size}"


def _axis(function: str, name: str, axis: int, shape: tuple[int, ...]) -> int:
    ndim, axis = len(shape), _integer(function, name, axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"{function}: {name} must be in {-ndim} … {ndim - 1} for shape {shape}, got {axis}")
    return axis % ndim


def _integer(owner: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}") from None


def _sizes(owner: str, sizes: Any) -> tuple[int, ...]:
    if isinstance(sizes, str) or not hasattr(sizes, "__iter__"):
        raise TypeError(f"{owner}: unflattened_size must be a tuple of lengths, got {sizes!r}")
    return tuple(_integer(owner, "a length in unflattened_size", size) for size in sizes)


def _tensor(function: str, x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x
    require_arrays(function, x=x)
    return Tensor(x)
