"""Convolution with few channels in a group on a CUDA device, ``direct_conv.cu``: what is launched for which arrays."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ._launch import Plan, aligned, blocks, c_type, launch
from .conv_geometry import (
    MOST_POSITIONS,
    Axis,
    check_positions,
    copy_needed,
    describe,
    epilogue,
    forward_axes,
    is_last,
    readable,
    sum_parts,
    widest,
)
from .windows import Windows

_SOURCE = Path(__file__).with_name("direct_conv.cu")
MOST_CHANNELS = 8  # in and out of a group: with more, a matrix product does less work a byte
_THREADS = 256
_TAPS = 9  # whose gradients a thread sums at a time
_RUN = 4  # neighbouring positions of a thread, channels-last
_ENOUGH_BLOCKS = 1024
_SHORTEST_PART = 8  # positions for each thread of a block


def plan_forward(x: Array, weight: Array, bias: Array | None, geometry: Windows, groups: int) -> Plan:
    """What :func:`gather` launches for ``y = conv(x, weight) + bias``."""
    copied = copy_needed(x, last=False)
    channels, outputs = weight.shape[1], weight.shape[0] // groups
    places = (x.shape[0], *geometry.counts(x.shape[2:]))
    vector = _vector(x, weight.shape[0], channels, outputs)
    return _plan(x.dtype, is_last(x), places, weight.shape[0], vector, epilogue(bias, False), copied)


def backward_weight(
    backend: Backend, dy: Array, x: Array, geometry: Windows, groups: int, dweight: Array, workspace: int
) -> None:
    """The gradient of the weight, into a C-contiguous array: parts of the sum over positions, then their sum."""
    filters, channels = dweight.shape[:2]
    x, dy = readable(x, last=False), readable(dy, last=False)
    count = dy.shape[0] * math.prod(dy.shape[2:])
    check_positions(count)
    last = is_last(dy) and is_last(x)
    across = 32 if last else 1
    tiles = -(-filters // across) * channels * -(-geometry.size // _TAPS)
    parts = -(-_ENOUGH_BLOCKS // tiles)
    parts = max(1, min(parts, count * across // _THREADS // _SHORTEST_PART, workspace // (4 * dweight.size)))
    plan = Plan(
        "direct_weight", _defines(x.dtype, last, 1), blocks("direct_weight", tiles * parts, 1), _THREADS, (), ""
    )
    partial = backend.empty((parts, filters, channels, geometry.size), np.float32, backend.device_of(x))
    axes = forward_axes(geometry, x.shape[2:], dy.shape[2:])
    described = describe(x, dy, axes, channels, filters // groups, groups, parts=parts)
    launch(_SOURCE, plan._replace(scalars=(described,)), backend, x, dy, partial)
    sum_parts(_SOURCE, plan.defines, backend, partial, dweight, 1, channels * geometry.size)


def gather(
    backend: Backend,
    x: Array,
    weight: Array,
    bias: Array | None,
    axes: tuple[Axis, ...],
    y: Array,
    first: tuple[int, ...] = (0, 0, 0),
    step: tuple[int, ...] = (1, 1, 1),
    relu: bool = False,
) -> None:
    """One gathered sum at the places first, first + step, … of y; weight: ``(groups, outputs, channels, *taps)``."""
    groups, outputs, channels = weight.shape[:3]
    rows = weight.reshape(groups * outputs, channels, -1)
    packed = backend.xp.ascontiguousarray(rows.transpose(2, 1, 0))  # (taps, channels, all outputs)
    if not aligned(packed):
        packed = packed.copy()
    bias = None if bias is None else backend.xp.ascontiguousarray(bias)
    x = readable(x, last=False)
    results = math.prod(axis.positions for axis in axes) * groups * outputs  # of one image; a launch counts in 32 bits
    check_positions(results)
    together = MOST_POSITIONS // results
    for begin in range(0, x.shape[0], together):
        part, out = x[begin : begin + together], y[begin : begin + together]
        places = (part.shape[0], *(axis.positions for axis in axes))
        vector = min(_vector(part, groups * outputs, channels, outputs), widest(out, groups * outputs))
        plan = _plan(x.dtype, is_last(out), places, groups * outputs, vector, epilogue(bias, relu), "")
        described = describe(part, out, axes, channels, outputs, groups, first=first, step=step)
        launch(_SOURCE, plan._replace(scalars=(described,)), backend, part, packed, bias, out)


def _vector(x: Array, filters: int, channels: int, outputs: int) -> int:
    return widest(x, filters) if channels == outputs == 1 else 1


def _defines(dtype: np.dtype[Any], last: bool, vector: int) -> tuple[str, ...]:
    if last:
        return f"DTYPE={c_type(dtype)}", "LAST", f"VECTOR={vector}", f"RUN={_RUN}", "ACROSS=32", f"TAPS={_TAPS}"
    return f"DTYPE={c_type(dtype)}", "VECTOR=1", "RUN=1", "ACROSS=1", f"TAPS={_TAPS}"


@lru_cache(maxsize=4096)
def _plan(
    dtype: np.dtype[Any],
    last: bool,
    places: tuple[int, ...],
    filters: int,
    vector: int,
    following: tuple[str, ...],
    copied: str,
) -> Plan:
    vector = vector if last else 1
    runs = -(-places[-1] // (_RUN if last else 1))
    threads = math.prod(places[:-1]) * runs * (filters // vector)
    defines = _defines(dtype, last, vector) + following
    loads = f"{vector} channels" if vector > 1 else "one channel"
    return Plan(
        "direct_product",
        defines,
        blocks("direct_product", threads, _THREADS),
        _THREADS,
        (),
        f"{copied}few channels in a group, summed directly, {loads} of {_RUN if last else 1} positions a thread",
    )
