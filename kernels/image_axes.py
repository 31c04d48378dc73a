"""Which values along an axis of an image each output takes, and with what weight: pooling, resizing, padding.

All of these treat the axes of an image one after another (they are separable), so an :class:`Axis` for each spatial
axis says everything. A kernel reads the same tables as the CPU does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import Array, pixels
from ._launch import is_float

CUBIC = -0.75  # the parameter of Keys' kernel that PyTorch, OpenCV and others take


@dataclass(frozen=True)
class Axis:
    """How the outputs along one axis come from the inputs; made by the functions below.

    Args:
        length: of the input.
        out: length of the output.
        rule: ``(name, numbers …)``, see :func:`taps`.
    """

    length: int
    out: int
    rule: tuple[Any, ...]

    @property
    def is_identity(self) -> bool:
        return self.length == self.out and self.rule[0] == "same"


class Taps:
    """The inputs of each output along an axis.

    Attributes:
        index: shape ``(out, K)``, int32; -1 where a window reaches beyond the image.
        weight: shape ``(out, K)``, float64, or None where all are 1.
        divisor: shape ``(out,)``, float64, what the sum of an output is divided by; or None.
    """

    __slots__ = ("divisor", "index", "weight")

    def __init__(self, index: Any, weight: Any = None, divisor: Any = None) -> None:
        self.index, self.weight, self.divisor = index.astype(np.int32), weight, divisor

    @property
    def most(self) -> int:
        """K, the most inputs of an output."""
        return int(self.index.shape[1])


def unchanged(length: int) -> Axis:
    """Every output is the input at its place."""
    return Axis(length, length, ("same",))


def windows(
    function: str,
    lengths: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Axis, ...]:
    """Windows of one size at equal steps: ``out = (n + 2 padding - dilation (k - 1) - 1) / stride + 1``, rounded down.

    With ``ceil_mode`` rounded up, but a window has to begin within the image or its padding on the left; an image
    smaller than a window has one then, where the stride is larger than what is missing.

    Raises:
        ValueError: an argument is out of range, or an image is smaller than a window.
    """
    for name, values, least in (
        ("kernel_size", kernel_size, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        if any(value < least for value in values):
            raise ValueError(f"{function}: {name} must be at least {least}, got {tuple(values)}")
    result = []
    for n, k, s, p, d in zip(lengths, kernel_size, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        if 2 * p > reach:
            raise ValueError(f"{function}: padding must be at most half of a window, {reach // 2}, got {p}")
        room = n + 2 * p - reach
        out = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (out - 1) * s >= n + p:
            out -= 1
        if out < 1 or (room < 0 and not ceil_mode):
            raise ValueError(f"{function}: a window of {reach} does not fit an axis of length {n} with padding {p}")
        result.append(Axis(n, out, ("window", k, s, p, d)))
    return tuple(result)


def adaptive(lengths: Sequence[int], outs: Sequence[int]) -> tuple[Axis, ...]:
    """``out`` windows that cover an axis: the i-th from ``floor(i n / out)`` to before ``ceil((i + 1) n / out)``."""
    return tuple(Axis(n, out, ("adaptive",)) for n, out in zip(lengths, outs, strict=True))


def averaged(axis: Axis, count_include_pad: bool) -> Axis:
    """The axis of a pooling with the mean of each window instead of its sum."""
    return Axis(axis.length, axis.out, ("mean", bool(count_include_pad), *axis.rule))


def divided(axis: Axis, divisor: float) -> Axis:
    """The axis of a pooling whose sums are divided by one number."""
    return Axis(axis.length, axis.out, ("divided", float(divisor), *axis.rule))


def resized(length: int, out: int, mode: str, align_corners: bool = False, scale: float | None = None) -> Axis:
    """An axis resized to ``out`` values.

    An output's place is ``(o + 1/2) s - 1/2`` with ``s = scale or length / out``; with ``align_corners``
    ``o (length - 1) / (out - 1)``. ``"nearest"`` takes the input at ``floor(o s)``, ``"nearest-exact"`` the one at
    ``floor((o + 1/2) s)``, ``"linear"`` the two beside the place, ``"cubic"`` four.
    """
    return Axis(length, out, (mode, bool(align_corners), scale))


def extended(length: int, before: int, after: int, mode: str) -> Axis:
    """An axis with ``before`` and ``after`` more values: ``"reflect"``, ``"replicate"`` or ``"circular"``.

    Negative numbers take values away; what is left goes around in a circle.
    """
    return Axis(length, length + before + after, (mode, before, after))


@lru_cache(maxsize=512)
def taps(axis: Axis) -> Taps:
    """The tables of an axis."""
    name, *numbers = axis.rule
    n, o = axis.length, np.arange(axis.out)
    if name == "same":
        return Taps(o[:, None])
    if name == "window":
        k, s, p, d = numbers
        index = o[:, None] * s + np.arange(k) * d - p
        return Taps(np.where((index >= 0) & (index < n), index, -1))
    if name == "adaptive":
        start, stop = o * n // axis.out, -(-(o + 1) * n // axis.out)
        index = start[:, None] + np.arange(int((stop - start).max(initial=1)))
        return Taps(np.where(index < stop[:, None], index, -1))
    if name == "divided":
        return Taps(taps(Axis(n, axis.out, tuple(numbers[1:]))).index, None, np.full(axis.out, numbers[0]))
    if name == "mean":
        plain = taps(Axis(n, axis.out, tuple(numbers[1:])))
        count = (plain.index >= 0).sum(axis=1)
        if numbers[0] and numbers[1] == "window":  # padding counts, but not what ceil_mode adds beyond it
            k, s, p, _ = numbers[2:]
            count = np.minimum(o * s - p + k, n + p) - (o * s - p)
        return Taps(plain.index, None, count.astype(np.float64))
    if name in ("reflect", "replicate", "circular"):
        place = o - numbers[0]
        if name == "replicate":
            place = np.clip(place, 0, n - 1)
        elif name == "circular":
            cut = max(-numbers[0], 0)
            place = (place - cut) % max(1, n - cut - max(-numbers[1], 0)) + cut
        elif n > 1:
            place = n - 1 - np.abs(n - 1 - np.abs(place))
        return Taps(place[:, None])
    return _resizing(axis, name, *numbers)


def _resizing(axis: Axis, mode: str, align_corners: bool, scale: float | None) -> Taps:
    n, o = axis.length, np.arange(axis.out)
    step = n / axis.out if scale is None else 1.0 / scale
    if mode.startswith("nearest"):
        shift = np.float32(0.5 if mode == "nearest-exact" else 0.0)
        place = np.floor((o.astype(np.float32) + shift) * np.float32(step))  # in float32, which decides at the edges
        return Taps(np.minimum(place.astype(np.int64), n - 1)[:, None])
    corner = (n - 1) / max(1, axis.out - 1)
    place = o * corner if align_corners else (o + 0.5) * step - 0.5
    if mode == "linear":
        place = np.maximum(place, 0.0)
        first = np.minimum(place.astype(np.int64), n - 1)
        part = np.clip(place - first, 0.0, 1.0)
        return Taps(np.stack([first, np.minimum(first + 1, n - 1)], 1), np.stack([1.0 - part, part], 1))
    first = np.floor(place).astype(np.int64)
    away = np.abs(first[:, None] + np.arange(-1, 3) - place[:, None])  # Keys 1981, "Cubic convolution interpolation"
    near = ((CUBIC + 2.0) * away - (CUBIC + 3.0)) * away * away + 1.0
    far = ((away - 5.0) * away + 8.0) * away * CUBIC - 4.0 * CUBIC
    return Taps(np.clip(first[:, None] + np.arange(-1, 3), 0, n - 1), np.where(away <= 1.0, near, far))


Step = tuple[int, bool, slice, slice]


@lru_cache(maxsize=512)
def steps(axis: Axis) -> tuple[Step, ...]:
    """``(k, new, outputs, inputs)``: input k of these outputs; ``new`` where no smaller k was one of them."""
    index = taps(axis).index
    found: list[Step] = []
    seen = np.zeros(axis.out, bool)
    for k in range(index.shape[1]):
        here = index[:, k] >= 0
        for new in (True, False):
            outs = np.flatnonzero(here & (seen != new))
            found.extend((k, new, *run) for run in _runs(outs, index[outs, k]))
        seen |= here
    return tuple(found)


def _runs(outs: Any, inputs: Any) -> list[tuple[slice, slice]]:
    """Two index arrays as pairs of slices: cut where a step changes."""
    runs = []
    start = 0
    while start < len(outs):
        stop, by = start + 1, (1, 1)
        if stop < len(outs):
            by = (int(outs[stop] - outs[start]), int(inputs[stop] - inputs[start]))
            if by[1] > 0:
                while stop < len(outs) and (outs[stop] - outs[stop - 1], inputs[stop] - inputs[stop - 1]) == by:
                    stop += 1
            else:
                by = (1, 1)
        last = stop - 1
        out_run = slice(int(outs[start]), int(outs[last]) + 1, by[0])
        runs.append((out_run, slice(int(inputs[start]), int(inputs[last]) + 1, by[1])))
        start = stop
    return runs


@lru_cache(maxsize=512)
def transposed(axis: Axis) -> tuple[Any, Any, Any]:
    """For each input the outputs that take it: their index, which of their inputs it is, and its weight.

    Three arrays of shape ``(length, R)``, int32, int32 and float64; the index is -1 beyond an input's outputs, which
    stand in their order. Weights are divided by what the output's sum is divided by.
    """
    forward = taps(axis)
    outs, which = np.nonzero(forward.index >= 0)
    inputs = forward.index[outs, which]
    weight = np.ones(len(outs)) if forward.weight is None else forward.weight[outs, which]
    if forward.divisor is not None:
        weight = weight / forward.divisor[outs]
    order = np.argsort(inputs, kind="stable")
    inputs, outs, which, weight = inputs[order], outs[order], which[order], weight[order]
    counts = np.bincount(inputs, minlength=axis.length)
    place = np.arange(len(inputs)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (axis.length, max(1, int(counts.max(initial=0))))
    index, number, weights = np.full(shape, -1, np.int32), np.zeros(shape, np.int32), np.zeros(shape)
    index[inputs, place], number[inputs, place], weights[inputs, place] = outs, which, weight
    return index, number, weights


def out_shape(shape: tuple[int, ...], axes: Sequence[Axis]) -> tuple[int, ...]:
    """The shape of the result for images of ``shape``."""
    return (*shape[: len(shape) - len(axes)], *(axis.out for axis in axes))


def window_size(axes: Sequence[Axis]) -> int:
    """The most inputs of an output, over all axes together."""
    return math.prod(taps(axis).most for axis in axes)


# -- what the kernels share -----------------------------------------------------------------------------------------


def check_images(function: str, x: Array, axes: Sequence[Axis], shape: tuple[int, ...] | None = None) -> None:
    """Raise unless ``x`` are images that ``axes`` fit; or, given their shape, the gradient of what comes of them."""
    if not is_float(x.dtype):
        raise TypeError(f"{function}: x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    given = x.shape if shape is None else shape
    if not 1 <= len(axes) <= 3 or len(given) != len(axes) + 2:
        raise ValueError(f"{function}: x must have shape (N, C, ...) with {len(axes)} spatial axes, got {given}")
    if given[2:] != tuple(axis.length for axis in axes):
        lengths = tuple(axis.length for axis in axes)
        raise ValueError(f"{function}: the spatial axes of x must be {lengths} long as axes says, got {given}")
    if shape is not None and x.shape != out_shape(shape, axes):
        raise ValueError(f"{function}: dy must have the shape of y, {out_shape(shape, axes)}, got {x.shape}")


def as_images(x: Array | None, last: bool) -> Array | None:
    """A view (images, spatial axes …, channels): planes have one channel."""
    if x is None:
        return None
    return pixels(x) if last else x.reshape(-1, *x.shape[2:], 1)


def three(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """With axes of length 1 in front, three."""
    return (*(unchanged(1),) * (3 - len(axes)), *axes)
