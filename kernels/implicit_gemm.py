"""Convolution on a CUDA device as gathered matrix products, ``implicit_gemm.cu``: what is launched for which arrays."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, current_precision, in_format, is_channels_last
from ._launch import WIDEST_ACCESS, Plan, aligned, blocks, c_type, definition_plan, launch
from .windows import Windows

_SOURCE = Path(__file__).with_name("implicit_gemm.cu")
_OLDEST = 80  # compute capability: cp.async, and mma of bfloat16 and tf32
_MOST_POSITIONS = 2**31 - 2**16  # of one launch; places are counted in 32 bits
_ENOUGH_BLOCKS = 256  # that keep a large device busy: about two for each multiprocessor
_SHORTEST_PART = 8  # tiles that a part of the sum over positions has at least

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

    def defines(self) -> tuple[str, ...]:
        return tuple(
            f"{name}={value}"
            for name, value in zip(("ROWS", "COLUMNS", "WARPS_M", "WARPS_N", "STAGES"), self, strict=True)
        )


# Tried from the largest on: the first that makes enough blocks, else the last. Not tuned on hardware yet.
_TILES = (_Tile(128, 128, 4, 2, 3), _Tile(128, 64, 4, 2, 3), _Tile(64, 64, 2, 2, 4))


class _Axis(NamedTuple):
    """One spatial axis of a gathered product: ``source = mul * position + base + delta * tap``, inside ``size``."""

    positions: int
    size: int
    mul: int
    base: int
    delta: int
    taps: int


_ONE = _Axis(1, 1, 1, 0, 1, 1)  # an axis that is not there


class Phase(NamedTuple):
    """The positions ``first, first + step, …`` of an axis, and the kernel's entries that reach them."""

    first: int
    step: int
    taps: slice
    axis: _Axis


def why_not(backend: Backend, x: Array) -> str | None:
    """Why there is no gathered product for these arrays, or None."""
    ctype = c_type(x.dtype)
    if ctype is None:
        return f"there is no kernel for {x.dtype}, only for float32, float16 and bfloat16"
    if backend.compute_capability(backend.device_of(x)) < _OLDEST:
        return f"asynchronous copies need compute capability {_OLDEST / 10}"
    return None


# -- forward -----------------------------------------------------------------------------------------------------------


def forward(
    backend: Backend, x: Array, weight: Array, bias: Array | None, geometry: Windows, groups: int, y: Array
) -> None:
    """``y = conv(x, weight) + bias``, all checked by the caller, ``y`` not empty."""
    axes = _forward_axes(geometry, x.shape[2:], y.shape[2:])
    _gather(backend, x, weight.reshape(groups, -1, *weight.shape[1:]), bias, axes, y, (0, 0, 0), (1, 1, 1))


def plan_forward(backend: Backend, x: Array, weight: Array, bias: Array | None, geometry: Windows, groups: int) -> Plan:
    """What :func:`forward` launches."""
    if (reason := why_not(backend, x)) is not None:
        return definition_plan(reason)
    counts = geometry.counts(x.shape[2:])
    channels, outputs = weight.shape[1], weight.shape[0] // groups
    x, copied = _readable(x, channels, rather_last=True, look_only=True)
    return _plan(
        "gathered_product", x.dtype, _defines(bias), current_precision() == "tf32", x.shape[0] * math.prod(counts),
        outputs, groups, _vector(x, channels, copied), copied,
    )  # fmt: skip


def _forward_axes(geometry: Windows, lengths: tuple[int, ...], counts: tuple[int, ...]) -> tuple[_Axis, ...]:
    return tuple(
        _Axis(count, length, stride, -before, dilation, taps)
        for count, length, stride, before, dilation, taps in zip(
            counts, lengths, geometry.stride, geometry.before, geometry.dilation, geometry.kernel, strict=True
        )
    )


# -- the gradient of x -------------------------------------------------------------------------------------------------


def backward_data(backend: Backend, dy: Array, weight: Array, geometry: Windows, groups: int, dx: Array) -> None:
    """The gradient of ``x``: a gathered product over ``dy`` for each remainder of the position by the stride."""
    swapped = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)  # (G, C, F, *kernel)
    for phases in product(*map(_phases, geometry_axes(geometry), dx.shape[2:], dy.shape[2:])):
        places = (..., *(slice(phase.first, None, phase.step) for phase in phases))
        if any(phase.axis.taps == 0 for phase in phases):
            dx[places] = 0
            continue
        taps = swapped[(..., *(phase.taps for phase in phases))]
        first, step = tuple(p.first for p in phases), tuple(p.step for p in phases)
        _gather(backend, dy, taps, None, tuple(p.axis for p in phases), dx, first, step)


def geometry_axes(geometry: Windows) -> list[tuple[int, int, int, int]]:
    """For each axis: kernel length, stride, padding in front, dilation."""
    return list(zip(geometry.kernel, geometry.stride, geometry.before, geometry.dilation, strict=True))


def _phases(axis: tuple[int, int, int, int], length: int, count: int) -> list[Phase]:
    """The places of x by their remainder: place ``i`` gets ``dy[(i + before - dilation k) / stride]`` where that is whole."""
    kernel, stride, before, dilation = axis
    apart = stride // math.gcd(stride, dilation)  # from one entry of the kernel that fits to the next
    result = []
    for first in range(min(stride, length)):
        fitting = [k for k in range(min(apart, kernel)) if (first + before - dilation * k) % stride == 0]
        start = fitting[0] if fitting else kernel
        taps = slice(start, None, apart)
        base = (first + before - dilation * start) // stride
        positions = -(-(length - first) // stride)
        reached = len(range(*taps.indices(kernel)))
        result.append(
            Phase(first, stride, taps, _Axis(positions, count, 1, base, -apart * dilation // stride, reached))
        )
    return result


# -- the gradient of the weight ----------------------------------------------------------------------------------------


def backward_weight(
    backend: Backend, dy: Array, x: Array, geometry: Windows, groups: int, dweight: Array, workspace: int
) -> None:
    """The gradient of the weight, into a C-contiguous array: parts of the sum over positions, then their sum in order."""
    filters, channels = dweight.shape[0], dweight.shape[1]
    outputs, taps = filters // groups, geometry.size
    axes = _forward_axes(geometry, x.shape[2:], dy.shape[2:])
    x, x_copied = _readable(x, channels, rather_last=True)
    dy, dy_copied = _readable(dy, outputs, rather_last=True)
    vector = min(_vector(x, channels, x_copied), _vector(dy, outputs, dy_copied))
    count = dy.shape[0] * math.prod(dy.shape[2:])
    _check_count(count)
    plan = _plan(
        "weight_product", x.dtype, (), current_precision() == "tf32", outputs, taps * channels, groups, vector,
        x_copied or dy_copied, depth=count, most_parts=max(1, workspace // (4 * dweight.size)),
    )  # fmt: skip
    tile = _tile_of(plan)
    tiles = -(-outputs // tile.rows) * -(-(taps * channels) // tile.columns) * groups
    parts = plan.grid // tiles
    partial = backend.empty((parts, filters, taps * channels), np.float32, backend.device_of(x))
    described = _describe(x, dy, axes, channels, outputs, groups, taps * channels, parts, (0, 0, 0), (1, 1, 1))
    launch(_SOURCE, plan._replace(scalars=(described,)), backend, x, dy, partial)
    sums = Plan(
        "sum_parts", plan.defines, blocks("sum_parts", dweight.size, 256), 256,
        (np.int32(parts), np.int32(filters), np.int32(channels), np.int32(taps)), "the parts in their order",
    )  # fmt: skip
    launch(_SOURCE, sums, backend, partial, dweight)


# -- the choice of a variant -------------------------------------------------------------------------------------------


def _gather(
    backend: Backend,
    x: Array,
    weight: Array,
    bias: Array | None,
    axes: tuple[_Axis, ...],
    y: Array,
    first: tuple[int, ...],
    step: tuple[int, ...],
) -> None:
    """One gathered product; ``weight`` is ``(groups, outputs, channels, *taps)``, places of y are first, first + step, …"""
    groups, outputs, channels = weight.shape[:3]
    taps = math.prod(weight.shape[3:])
    pack = WIDEST_ACCESS // x.dtype.itemsize
    width = -(-taps * channels // pack) * pack
    rows = weight.reshape(groups * outputs, channels, taps).transpose(0, 2, 1)
    if width == taps * channels and rows.flags.c_contiguous:
        packed = rows.reshape(groups * outputs, width)
    else:
        packed = backend.xp.zeros((groups * outputs, width), x.dtype) if width > taps * channels else backend.empty(
            (groups * outputs, width), x.dtype, backend.device_of(x)
        )
        packed[:, : taps * channels].reshape(groups * outputs, taps, channels)[...] = rows
    if not aligned(packed):
        packed = packed.copy()
    x, copied = _readable(x, channels, rather_last=True)
    if bias is not None:
        bias = backend.xp.ascontiguousarray(bias)
    positions = math.prod(axis.positions for axis in axes)
    together = max(1, _MOST_POSITIONS // positions)
    for begin in range(0, x.shape[0], together):
        part, out = x[begin : begin + together], y[begin : begin + together]
        count = part.shape[0] * positions
        _check_count(count)
        plan = _plan(
            "gathered_product", x.dtype, _defines(bias), current_precision() == "tf32", count, outputs, groups,
            _vector(part, channels, copied), copied,
        )  # fmt: skip
        described = _describe(part, out, axes, channels, outputs, groups, width, 1, first, step)
        launch(_SOURCE, plan._replace(scalars=(described,)), backend, part, packed, bias, out)


def _check_count(count: int) -> None:
    if count > _MOST_POSITIONS:
        raise ValueError(f"conv: a CUDA kernel takes at most {_MOST_POSITIONS} output positions, these arrays have {count}")


def _defines(bias: Array | None) -> tuple[str, ...]:
    return () if bias is None else ("BIAS",)


def _readable(x: Array, channels: int, *, rather_last: bool, look_only: bool = False) -> tuple[Array, str]:
    """``x`` dense and, where 16-byte copies are then possible, channels-last; and what was copied for that."""
    widest = WIDEST_ACCESS // x.dtype.itemsize
    wanted = rather_last and channels % widest == 0
    if is_channels_last(x) or (x.flags.c_contiguous and not wanted):
        return x, ""
    if x.flags.c_contiguous and _also_last(x):
        return x, ""
    copied = f"copied to {'channels-last' if wanted else 'contiguous'} first; "
    return (x if look_only else in_format(x, wanted)), copied


def _also_last(x: Array) -> bool:
    """Whether a contiguous array has one channel or one pixel, so that it is channels-last as well."""
    return x.shape[1] == 1 or math.prod(x.shape[2:]) == 1


def _vector(x: Array, channels: int, copied: str) -> int:
    widest = WIDEST_ACCESS // x.dtype.itemsize
    last = "channels-last" in copied or is_channels_last(x) or _also_last(x)
    return widest if last and channels % widest == 0 and (copied or aligned(x)) else 1


@lru_cache(maxsize=4096)
def _plan(
    kernel: str,
    dtype: np.dtype[Any],
    defines: tuple[str, ...],
    tf32: bool,
    rows: int,
    columns: int,
    groups: int,
    vector: int,
    copied: str,
    depth: int = 0,
    most_parts: int = 1,
) -> Plan:
    is_float = dtype.itemsize == 4
    if is_float and tf32:
        defines = ("TF32", *defines)
    how = "mma.sync" if not is_float else "mma.sync in tf32" if tf32 else "float32 multiply-adds"
    tiles = _TILES[1:] if is_float and not tf32 else _TILES
    for tile in tiles:
        grid = -(-rows // tile.rows) * -(-columns // tile.columns) * groups
        if grid >= _ENOUGH_BLOCKS and (columns > 64 or tile.columns == 64):
            break
    parts = 1
    if depth:
        steps = -(-depth // (64 // dtype.itemsize))
        parts = max(1, min(-(-_ENOUGH_BLOCKS // grid), steps // _SHORTEST_PART, most_parts))
    loads = "copies of 16 bytes" if vector > 1 else "single elements (channels-last and channels by 16 bytes are faster)"
    split = f"; the sum in {parts} parts" if parts > 1 else ""
    return Plan(
        kernel,
        (f"DTYPE={c_type(dtype)}", *defines, f"VECTOR={vector}", *tile.defines()),
        blocks(kernel, grid * parts, 1),
        tile.threads,
        (),
        f"{copied}implicit GEMM by {how}, tiles of {tile.rows} x {tile.columns}, {loads}{split}",
        tile.shared,
    )


def _tile_of(plan: Plan) -> _Tile:
    return next(tile for tile in _TILES if plan.defines[-5:] == tile.defines())


def _describe(
    x: Array,
    y: Array,
    axes: tuple[_Axis, ...],
    channels: int,
    outputs: int,
    groups: int,
    width: int,
    parts: int,
    first: tuple[int, ...],
    step: tuple[int, ...],
) -> np.ndarray:
    """The struct Geometry; missing spatial axes stand in front, with one position each."""
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
