"""What the convolution kernels are told of their arrays: the struct Geometry of ``conv_geometry.cuh``, and its axes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..backend import Array, Backend, in_format, is_channels_last
from ._launch import WIDEST_ACCESS, Plan, aligned, blocks, launch
from .windows import Windows

MOST_POSITIONS = 2**31 - 2**16  # of one launch; places are counted in 32 bits
_SUM_THREADS = 256  # of sum_parts

_AXIS = [(name, np.int32) for name in ("positions", "size", "mul", "base", "delta", "taps")]
_GEOMETRY = np.dtype(
    [
        ("x_image", np.int64),
        ("x_at", np.int64, 3),
        ("x_channel", np.int64),
        ("y_image", np.int64),
        ("y_at", np.int64, 3),
        ("y_channel", np.int64),
        ("y_first", np.int64),
        ("axis", _AXIS, 3),
        *((name, np.int32) for name in ("images", "channels", "outputs", "groups", "width", "parts")),
    ]
)


class Axis(NamedTuple):
    """One spatial axis of a gathered sum: ``source = mul * position + base + delta * tap``, inside ``size``."""

    positions: int
    size: int
    mul: int
    base: int
    delta: int
    taps: int


_ONE = Axis(1, 1, 1, 0, 1, 1)  # an axis that is not there


class Phase(NamedTuple):
    """The positions ``first, first + step, …`` of an axis, and the kernel's entries that reach them."""

    first: int
    step: int
    taps: slice
    axis: Axis


def forward_axes(geometry: Windows, lengths: tuple[int, ...], counts: tuple[int, ...]) -> tuple[Axis, ...]:
    """For ``lengths`` of x and ``counts`` of y."""
    return tuple(
        Axis(count, length, stride, -before, dilation, taps)
        for count, length, stride, before, dilation, taps in zip(
            counts, lengths, geometry.stride, geometry.before, geometry.dilation, geometry.kernel, strict=True
        )
    )


def backward_phases(geometry: Windows, lengths: tuple[int, ...], counts: tuple[int, ...]) -> list[list[Phase]]:
    """For each axis the places of x by their remainder: place ``i`` gets ``dy[(i + before - dilation k) / stride]``.

    A remainder that no entry of the kernel reaches has 0 taps: the gradient is 0 there.
    """
    result = []
    for kernel, stride, before, dilation, length, count in zip(
        geometry.kernel, geometry.stride, geometry.before, geometry.dilation, lengths, counts, strict=True
    ):
        apart = stride // math.gcd(stride, dilation)  # from one entry of the kernel that fits to the next
        phases = []
        for first in range(min(stride, length)):
            fitting = [k for k in range(min(apart, kernel)) if (first + before - dilation * k) % stride == 0]
            start = fitting[0] if fitting else kernel
            taps = slice(start, None, apart)
            base = (first + before - dilation * start) // stride
            positions = -(-(length - first) // stride)
            axis = Axis(positions, count, 1, base, -apart * dilation // stride, len(range(*taps.indices(kernel))))
            phases.append(Phase(first, stride, taps, axis))
        result.append(phases)
    return result


def backward_sums(
    weight: Array, geometry: Windows, groups: int, dy: Array, dx: Array
) -> Iterator[tuple[Array, tuple[Axis, ...], tuple[int, ...], tuple[int, ...]]]:
    """The gathered sums over ``dy`` that make up the gradient of x; places that nothing reaches become 0 here.

    Yields:
        the part of the weight, ``(groups, channels, outputs, *taps)``; the axes; first place and step along each.
    """
    swapped = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    for phases in product(*backward_phases(geometry, dx.shape[2:], dy.shape[2:])):
        if any(phase.axis.taps == 0 for phase in phases):
            dx[(..., *(slice(phase.first, None, phase.step) for phase in phases))] = 0
            continue
        taps = swapped[(..., *(phase.taps for phase in phases))]
        yield taps, tuple(p.axis for p in phases), tuple(p.first for p in phases), tuple(p.step for p in phases)


def epilogue(bias: Array | None, relu: bool) -> tuple[str, ...]:
    """The macros for what follows a gathered sum."""
    return (("BIAS",) if bias is not None else ()) + (("RELU",) if relu else ())


def describe(
    x: Array,
    y: Array,
    axes: tuple[Axis, ...],
    channels: int,
    outputs: int,
    groups: int,
    *,
    width: int = 0,
    parts: int = 1,
    first: tuple[int, ...] = (0, 0, 0),
    step: tuple[int, ...] = (1, 1, 1),
) -> np.ndarray:
    """The struct Geometry, passed by value; missing spatial axes stand in front, with one position each.

    Args:
        x: where elements are gathered, any strides.
        y: whose positions these are.
        axes: its spatial axes.
        channels, outputs: channels of x and of y within one group.
        groups: their number.
        width: elements from one row of the packed weight to the next.
        parts: in which the sum over positions is cut.
        first, step: the places of y along each axis are first, first + step, ….
    """
    missing = 3 - len(axes)
    x_strides, y_strides = (tuple(s // a.dtype.itemsize for s in a.strides) for a in (x, y))
    described = np.zeros((), _GEOMETRY)
    described["x_image"], described["x_channel"] = x_strides[:2]
    described["y_image"], described["y_channel"] = y_strides[:2]
    described["x_at"] = (0,) * missing + x_strides[2:]
    described["y_at"] = (0,) * missing + tuple(s * a for s, a in zip(y_strides[2:], step, strict=False))
    described["y_first"] = sum(s * f for s, f in zip(y_strides[2:], first, strict=False))
    described["axis"] = [_ONE] * missing + list(axes)
    numbers = (x.shape[0], channels, outputs, groups, width, parts)
    for name, number in zip(("images", "channels", "outputs", "groups", "width", "parts"), numbers, strict=True):
        described[name] = number
    return described


# -- reading images ----------------------------------------------------------------------------------------------------


def is_last(x: Array) -> bool:
    """Whether the channels lie beside each other; also where a contiguous array has one channel or one pixel."""
    return is_channels_last(x) or (x.flags.c_contiguous and (x.shape[1] == 1 or math.prod(x.shape[2:]) == 1))


def copy_needed(x: Array, *, last: bool) -> str:
    """What has to be copied so that ``x`` is dense, and channels-last where that is wanted; empty if nothing."""
    if is_last(x) or (x.flags.c_contiguous and not last):
        return ""
    return f"copied to {'channels-last' if last else 'contiguous'} first; "


def readable(x: Array, *, last: bool) -> Array:
    """``x``, or the copy that :func:`copy_needed` names."""
    return in_format(x, last) if copy_needed(x, last=last) else x


def widest(x: Array, channels: int, *, copied: bool = False) -> int:
    """The elements of 16 bytes where they lie beside each other in x, or in its copy: else 1."""
    pack = WIDEST_ACCESS // x.dtype.itemsize
    return pack if channels % pack == 0 and (copied or (is_last(x) and aligned(x))) else 1


def check_positions(count: int) -> None:
    """Raises ValueError: more output positions than a launch can count."""
    if count > MOST_POSITIONS:
        raise ValueError(
            f"conv: a CUDA kernel takes at most {MOST_POSITIONS} output positions, these arrays have {count}"
        )


def sum_parts(
    source: Path, defines: tuple[str, ...], backend: Backend, partial: Array, dweight: Array, channels: int, taps: int
) -> None:
    """``dweight[k, c, u]`` from ``partial[part, k, u, c]``, the parts in their order."""
    rows = dweight.size // (channels * taps)
    scalars = (np.int32(partial.shape[0]), np.int32(rows), np.int32(channels), np.int32(taps))
    grid = blocks("sum_parts", dweight.size, _SUM_THREADS)
    launch(source, Plan("sum_parts", defines, grid, _SUM_THREADS, scalars, ""), backend, partial, dweight)
