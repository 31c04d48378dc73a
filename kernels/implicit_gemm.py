"""Convolution on a CUDA device as gathered matrix products, ``implicit_gemm.cu``: what is launched for which arrays."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, current_precision
from ._launch import WIDEST_ACCESS, Plan, aligned, blocks, c_type, launch
from .conv_geometry import (
    MOST_POSITIONS,
    Axis,
    check_positions,
    copy_needed,
    describe,
    epilogue,
    forward_axes,
    readable,
    sum_parts,
    widest,
)
from .windows import Windows

_SOURCE = Path(__file__).with_name("implicit_gemm.cu")
OLDEST = 80  # compute capability: asynchronous copies, products of bfloat16 and tf32
_ENOUGH_BLOCKS = 256  # that keep a large device busy: about two for each multiprocessor
_SHORTEST_PART = 8  # tiles that a part of the sum over positions has at least


class _Tile(NamedTuple):
    rows: int
    columns: int
    warps_m: int
    warps_n: int
    stages: int

    @property
    def threads(self) -> int:
        return 32 * self.warps_m * self.warps_n

    @property
    def shared(self) -> int:
        return self.stages * (self.rows + self.columns) * 80

    @property
    def defines(self) -> tuple[str, ...]:
        names = ("ROWS", "COLUMNS", "WARPS_M", "WARPS_N", "STAGES")
        return tuple(f"{name}={value}" for name, value in zip(names, self, strict=True))


# From the largest on, the first that makes enough blocks, else the last. Not tuned on hardware yet.
_TILES = (_Tile(128, 128, 4, 2, 3), _Tile(128, 64, 4, 2, 3), _Tile(64, 64, 2, 2, 4))


def plan_forward(x: Array, weight: Array, bias: Array | None, geometry: Windows, groups: int) -> Plan:
    """What :func:`gather` launches for ``y = conv(x, weight) + bias``."""
    positions = x.shape[0] * math.prod(geometry.counts(x.shape[2:]))
    return _plan_gather(x, weight.shape[1], weight.shape[0] // groups, groups, positions, bias)


def backward_weight(
    backend: Backend, dy: Array, x: Array, geometry: Windows, groups: int, dweight: Array, workspace: int
) -> None:
    """The gradient of the weight, into a C-contiguous array: parts of the sum over positions, then their sum."""
    filters, channels = dweight.shape[:2]
    outputs, terms = filters // groups, geometry.size * channels
    count = dy.shape[0] * math.prod(dy.shape[2:])
    check_positions(count)
    pack = WIDEST_ACCESS // x.dtype.itemsize
    last = channels % pack == 0 and outputs % pack == 0
    copied = copy_needed(x, last=last) or copy_needed(dy, last=last)
    x, dy = readable(x, last=last), readable(dy, last=last)
    vector = min(widest(x, channels), widest(dy, outputs))
    most_parts = max(1, workspace // (4 * dweight.size))
    plan, parts = _plan(
        "weight_product", x.dtype, (), current_precision() == "tf32", outputs, terms, groups, vector, copied,
        count, most_parts,
    )  # fmt: skip
    partial = backend.empty((parts, filters, terms), np.float32, backend.device_of(x))
    axes = forward_axes(geometry, x.shape[2:], dy.shape[2:])
    described = describe(x, dy, axes, channels, outputs, groups, parts=parts)
    launch(_SOURCE, plan._replace(scalars=(described,)), backend, x, dy, partial)
    sum_parts(_SOURCE, plan.defines, backend, partial, dweight, channels, geometry.size)


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
    """One gathered product at the places first, first + step, … of y; weight ``(groups, outputs, channels, *taps)``."""
    groups, outputs, channels = weight.shape[:3]
    packed = _packed(backend, weight)
    bias = None if bias is None else backend.xp.ascontiguousarray(bias)
    copied = bool(copy_needed(x, last=_wants_last(x, channels)))
    x = readable(x, last=_wants_last(x, channels))
    positions = math.prod(axis.positions for axis in axes)
    check_positions(positions)
    together = MOST_POSITIONS // positions
    for begin in range(0, x.shape[0], together):
        part, out = x[begin : begin + together], y[begin : begin + together]
        plan = _plan_gather(part, channels, outputs, groups, part.shape[0] * positions, bias, relu, copied=copied)
        described = describe(part, out, axes, channels, outputs, groups, width=packed.shape[1], first=first, step=step)
        launch(_SOURCE, plan._replace(scalars=(described,)), backend, part, packed, bias, out)


def _packed(backend: Backend, weight: Array) -> Array:
    """``(groups, outputs, channels, *taps)`` as rows (tap, channel) of whole 16 bytes, one for each output."""
    groups, outputs, channels = weight.shape[:3]
    taps = math.prod(weight.shape[3:])
    pack = WIDEST_ACCESS // weight.dtype.itemsize
    terms, rows = taps * channels, groups * outputs
    ordered = weight.reshape(rows, channels, taps).transpose(0, 2, 1)
    if terms % pack == 0 and ordered.flags.c_contiguous and aligned(ordered):
        return ordered.reshape(rows, terms)
    packed = backend.empty((rows, -(-terms // pack) * pack), weight.dtype, backend.device_of(weight))
    packed[:, terms:] = 0
    packed[:, :terms].reshape(rows, taps, channels)[...] = ordered
    return packed


def _wants_last(x: Array, channels: int) -> bool:
    return channels % (WIDEST_ACCESS // x.dtype.itemsize) == 0


# -- the choice of a variant -------------------------------------------------------------------------------------------


def _plan_gather(
    x: Array,
    channels: int,
    outputs: int,
    groups: int,
    positions: int,
    bias: Array | None,
    relu: bool = False,
    *,
    copied: bool = False,
) -> Plan:
    copies = copy_needed(x, last=_wants_last(x, channels))
    vector = widest(x, channels, copied=copied or bool(copies))
    tf32 = current_precision() == "tf32"
    numbers = (positions, outputs, groups, vector)
    plan, _ = _plan("gathered_product", x.dtype, epilogue(bias, relu), tf32, *numbers, copies, 0, 1)
    return plan


@lru_cache(maxsize=4096)
def _plan(
    kernel: str,
    dtype: np.dtype[Any],
    following: tuple[str, ...],
    tf32: bool,
    rows: int,
    columns: int,
    groups: int,
    vector: int,
    copied: str,
    depth: int,
    most_parts: int,
) -> tuple[Plan, int]:
    """The launch of a product of ``rows`` x ``columns``, and in how many parts its sum over ``depth`` terms is cut."""
    ieee = dtype.itemsize == 4 and not tf32
    how = "float32 multiply-adds" if ieee else "mma.sync" if dtype.itemsize == 2 else "mma.sync in tf32"
    for tile in _TILES[1:] if ieee else _TILES:
        grid = -(-rows // tile.rows) * -(-columns // tile.columns) * groups
        if grid >= _ENOUGH_BLOCKS and (columns > 64 or tile.columns == 64):
            break
    steps = -(-depth * dtype.itemsize // 64)  # tiles along the sum
    parts = max(1, min(-(-_ENOUGH_BLOCKS // grid), steps // _SHORTEST_PART, most_parts))
    defines = (f"DTYPE={c_type(dtype)}", f"VECTOR={vector}", *tile.defines)
    if dtype.itemsize == 4 and tf32:
        defines += ("TF32",)
    defines += following
    loads = "copies of 16 bytes" if vector > 1 else "single elements, as 16 bytes have not one tap or are not aligned"
    because = f"{copied}implicit GEMM by {how}, tiles of {tile.rows} x {tile.columns}, {loads}"
    if parts > 1:
        because += f", the sum over positions in {parts} parts"
    return Plan(kernel, defines, blocks(kernel, grid * parts, 1), tile.threads, (), because, tile.shared), parts
