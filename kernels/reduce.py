"""Sum, mean, extremes, their places and log-sum-exp over axes, on plain arrays; the CUDA kernels are in ``reduce.cu``.

On CUDA they are deterministic and computed in float32. On the CPU a long sum over an axis that is not the last is done
block by block: NumPy adds such rows one after another, and loses a digit for every hundredfold.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of
from ._launch import (
    WIDEST_ACCESS,
    Plan,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    explained,
    is_float,
    launch,
    no_cuda,
    no_kernel_for,
)

_SOURCE = Path(__file__).with_name("reduce.cu")
_LONGEST = 2**30  # elements of an axis that the kernels' 32-bit index reaches
_KERNELS = {"sum": "sum", "mean": "sum", "max": "max", "min": "max", "argmax": "argmax", "argmin": "argmax"} | {
    "logsumexp": "lse"
}
_PLACES = ("argmax", "argmin")
_BLOCK = 1 << 9  # rows that are added up one after another on the CPU


def reduce(operation: str, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """One number for each slice of ``x`` along ``axis``: its sum, its largest value, where that stands, ….

    16-bit floats are computed in float32 and rounded once; sums of float32 lose no digits with the length of the axis.

    Args:
        operation: ``"sum"``, ``"mean"``, ``"max"``, ``"min"``, ``"argmax"``, ``"argmin"`` or ``"logsumexp"``. NaN wins
            every comparison; of equal values the first counts. ``logsumexp`` is ``log(sum(exp(x)))`` without overflow.
        x: float16, bfloat16, float32 or float64.
        axis: one axis, several (not for places), or None for all: then a place counts in C order.
        keepdims: keep reduced axes with length 1.
    Returns:
        an array of the dtype of ``x``; of int64 for places.
    Raises:
        ValueError: no such operation; an axis is out of range or named twice; there is nothing to take an extreme of.
        TypeError: ``x`` is not floating, or places are asked for along several axes.
    """
    backend = backend_of(x)
    axes = _check(operation, x, axis)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    shape = kept if keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
    if backend.runs_cuda and x.size and (layout := _layout(x.shape, axes)) is not None:
        x = contiguous(backend, x)
        plan = _select(operation, x.dtype, layout, backend.address(x) % WIDEST_ACCESS == 0)
        if plan.kernel:
            return _on_cuda(backend, operation, plan, x, layout).reshape(shape)
    return reduce_definition(operation, x, axes).reshape(shape)


def sum_rows(a: Array, out: Array | None = None) -> Array:
    """The sum over axis 0, ``(N, D) -> (D,)``: the gradient of a bias.

    On CUDA a kernel, in a fixed order; many rows are cut into parts, which a second launch puts together.

    Args:
        a: float16, bfloat16, float32 or float64; 16-bit floats are added in float32.
        out: where to write, C-contiguous, of the dtype of ``a``; a new array by default.
    Raises:
        ValueError: ``a`` has not 2 axes, or ``out`` does not fit.
    """
    if a.ndim != 2:
        raise ValueError(f"sum_rows: a must have shape (N, D), got {a.shape}")
    backend = backend_of(a)
    if out is not None and (out.shape != a.shape[1:] or out.dtype != a.dtype or not out.flags.c_contiguous):
        raise ValueError(
            f"sum_rows: out must be C-contiguous {a.dtype} of shape {a.shape[1:]}, got {out.dtype} of {out.shape} with "
            f"strides {out.strides}"
        )
    if backend.runs_cuda and (plan := _select_sum(a)).kernel:
        layout = (1, *a.shape)
        total = _on_cuda(backend, "sum", plan, contiguous(backend, a), layout, out)
        return total.reshape(a.shape[1]) if out is None else out
    return backend.sum_rows(a, out)


def reduce_definition(operation: str, x: Array, axes: tuple[int, ...]) -> Array:
    """The definition in array operations, for every dtype and backend, with reduced axes kept."""
    backend = backend_of(x)
    xp, dtype = backend.xp, x.dtype
    wide = x.astype("float32") if dtype.itemsize == 2 else x
    if operation in _PLACES:
        if len(axes) > 1 or not axes:
            wide, axes = wide.reshape(-1), (0,)
        return xp.expand_dims(getattr(wide, operation)(axis=axes[0]), axes[0])
    with np.errstate(all="ignore"):
        if operation in ("max", "min"):
            y = getattr(wide, operation)(axis=axes, keepdims=True)
        elif operation == "logsumexp":
            top = xp.clip(wide.max(axis=axes, keepdims=True), _lowest(wide), -_lowest(wide))
            y = top + xp.log(_sum(backend, xp.exp(wide - top), axes))
        else:
            y = _sum(backend, wide, axes)
            if operation == "mean":
                count = math.prod(x.shape[a] for a in axes)
                y = y * (1.0 / count if count else math.nan)
        return y.astype(dtype, copy=False)


def _lowest(x: Array) -> float:
    return float(np.finfo(x.dtype).min)


def _sum(backend: Backend, x: Array, axes: tuple[int, ...]) -> Array:
    """The sum with reduced axes kept; on the CPU block by block where NumPy would add up a long chain."""
    layout = _layout(x.shape, axes) if backend.xp is np and x.flags.c_contiguous and x.size else None
    if layout is None or layout[2] == 1 or layout[1] <= _BLOCK:
        return x.sum(axis=axes, keepdims=True)
    outer, _, inner = layout
    slices = x.reshape(layout)
    y = backend.empty((outer, inner), x.dtype, backend.device_of(x))
    for i in range(outer):
        backend.sum_rows(slices[i], y[i])
    return y.reshape(tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


def _check(operation: str, x: Array, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes counted from the front, in order."""
    if operation not in _KERNELS:
        raise ValueError(f"reduce: operation must be one of {', '.join(map(repr, _KERNELS))}, got {operation!r}")
    if not is_float(x.dtype):
        raise TypeError(f"reduce: x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    given = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if any(not isinstance(a, int) or not -x.ndim <= a < x.ndim for a in given):
        raise ValueError(f"reduce: axis must be in {-x.ndim} … {x.ndim - 1} for shape {x.shape}, got axis={axis}")
    axes = tuple(sorted({a % x.ndim for a in given}))
    if len(axes) != len(given):
        raise ValueError(f"reduce: an axis may be named once, got axis={axis}")
    if operation in _PLACES and axis is not None and len(axes) > 1:
        raise TypeError(f"reduce: {operation} takes one axis or None, got axis={axis}")
    if operation not in ("sum", "mean", "logsumexp") and 0 in (x.shape[a] for a in axes):
        raise ValueError(f"reduce: an axis of length 0 has no {operation}, got shape {x.shape}, axis={axis}")
    return axes


def _layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """``(outer, cols, inner)`` where the reduced axes lie beside each other, else None."""
    if not axes or axes[-1] - axes[0] + 1 != len(axes):
        return None
    return math.prod(shape[: axes[0]]), math.prod(shape[a] for a in axes), math.prod(shape[axes[-1] + 1 :])


# -- the choice of a kernel ------------------------------------------------------------------------------------------
_FEW_BLOCKS = 264  # with fewer a device is not filled, and a long axis is cut
_ROW_PART, _COLUMN_PART = 1 << 14, 1 << 9  # elements of an axis that one block should have at least
_ONE_WARP = 1024  # elements that one warp reduces
_WIDTH, _DEPTH = 32, 8


@lru_cache(maxsize=4096)
def _select(operation: str, dtype: Any, layout: tuple[int, int, int], is_aligned: bool) -> Plan:
    """The kernel that reads ``x``; a function of plain values, so that it is remembered. A cut axis needs two."""
    ctype = c_type(dtype)
    outer, cols, inner = layout
    if ctype is None:
        return definition_plan(no_kernel_for(dtype))
    if cols > _LONGEST:
        return definition_plan(f"the axis has {cols} elements, the kernels index at most {_LONGEST}")
    scalars: tuple[np.generic, ...]
    kernel = f"reduce_{_KERNELS[operation]}_{'rows' if inner == 1 else 'columns'}"
    if inner == 1:
        vector = WIDEST_ACCESS // dtype.itemsize if is_aligned and cols > _WIDTH else 1
        threads = 32 if cols <= _ONE_WARP else 512
        packs = {(1, 32): 4, (1, 512): 2, (4, 32): 2, (4, 512): 2, (8, 32): 1, (8, 512): 1}[vector, threads]
        parts, chunk = _parts(cols, outer, _ROW_PART)
        per_block = max(1, 128 // threads)
        grid = blocks(kernel, outer * parts, per_block)
        defines = ("ROWS", f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={packs}")
        because = f"{threads} threads to a row of {chunk}"
        block, scalars = threads * per_block, (np.int64(outer), np.int32(cols))
    else:
        tiles = -(-outer * inner // _WIDTH)
        parts, chunk = _parts(cols, tiles, _COLUMN_PART)
        grid, block = blocks(kernel, tiles * parts, 1), _WIDTH * _DEPTH
        defines = ("COLUMNS", f"DTYPE={ctype}", "VECTOR=1", f"WIDTH={_WIDTH}", f"DEPTH={_DEPTH}")
        because = f"{_DEPTH} threads to a column of {chunk}, neighbours beside each other"
        scalars = (np.int64(outer), np.int32(cols), np.int64(inner))
    if parts > 1:
        because += f"; the axis of {cols} is cut into {parts} parts, which a second launch puts together"
    return Plan(kernel, defines, grid, block, (*scalars, np.int32(chunk), np.int32(parts)), because)


def _parts(cols: int, others: int, part: int) -> tuple[int, int]:
    """Into how many parts an axis is cut, and how long they are."""
    wanted = min(-(-cols // part), -(-_FEW_BLOCKS // others))
    chunk = -(-cols // max(1, wanted))
    return -(-cols // chunk), chunk


def _on_cuda(
    backend: Backend, operation: str, plan: Plan, x: Array, layout: tuple[int, int, int], out: Array | None = None
) -> Array:
    """One launch, or for a cut axis one and another that puts the parts together; into ``out`` where it is given."""
    outer, cols, inner = layout
    device, parts = backend.device_of(x), int(plan.scalars[-1])
    factor = 1.0 / cols if operation == "mean" else -1.0 if operation in ("min", "argmin") else 1.0
    if parts == 1 and operation in _PLACES:
        places = backend.empty((outer, inner), "int64", device)
        _launch(backend, plan, factor, x, None, None, places)
        return places
    y = backend.empty((outer, inner), x.dtype, device) if out is None else out.reshape(outer, inner)
    if parts == 1:
        _launch(backend, plan, factor, x, y)
        return y
    partial = backend.empty((outer, parts, inner), "float32", device)
    places = backend.empty(partial.shape, "int64", device) if operation in _PLACES else None
    _launch(backend, plan, 1.0 if operation == "mean" else factor, x, None, partial, places)
    if places is not None:
        best = reduce(operation, partial, 1, keepdims=True)
        return backend.xp.take_along_axis(places, best, axis=1).reshape(outer, inner)
    last = _select(operation, partial.dtype, partial.shape, backend.address(partial) % WIDEST_ACCESS == 0)
    whole = y if y.dtype == partial.dtype else backend.empty(y.shape, "float32", device)
    _launch(backend, last, factor, partial, whole)
    if whole is not y:
        y[...] = whole
    return y


def _launch(
    backend: Backend, plan: Plan, factor: float, x: Array, y: Array | None, partial: Any = None, places: Any = None
) -> None:
    plan = plan._replace(scalars=(*plan.scalars, np.float32(factor)))
    launch(_SOURCE, plan, backend, x, y, partial, places)


@explained("reduce")
def _explain(operation: str, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Plan:
    backend = backend_of(x)
    axes = _check(operation, x, axis)
    if not backend.runs_cuda or not x.size:
        return definition_plan(no_cuda(backend) if x.size else "the array is empty")
    layout = _layout(x.shape, axes)
    if layout is None:
        return definition_plan(f"axes {axes} do not lie beside each other")
    copied = "" if x.flags.c_contiguous else "x is not C-contiguous and copied first; "
    x = contiguous(backend, x)
    plan = _select(operation, x.dtype, layout, backend.address(x) % WIDEST_ACCESS == 0)
    return plan._replace(because=copied + plan.because)


@explained("sum_rows")
def _explain_sum(a: Array, out: Array | None = None) -> Plan:
    return _select_sum(a)


def _select_sum(a: Array) -> Plan:
    backend = backend_of(a)
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    if not a.size:
        return definition_plan("the array is empty")
    rows, cols = a.shape
    starts = backend.address(contiguous(backend, a)) if cols == 1 else 0  # columns are read one by one
    return _select("sum", a.dtype, (1, rows, cols), starts % WIDEST_ACCESS == 0)
