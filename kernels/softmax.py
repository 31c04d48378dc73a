"""Softmax, log-softmax and their derivatives on plain arrays; the CUDA kernels are in ``softmax.cu``."""

from __future__ import annotations

import math
from functools import lru_cache
from operator import index
from pathlib import Path

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend
from . import softmax_numpy
from ._launch import (
    FLOATS,
    OWN_SHARED,
    WIDEST_ACCESS,
    DeviceSize,
    Plan,
    Plans,
    aligned,
    blocks,
    c_type,
    contiguous,
    explained,
    is_float,
    launch,
    no_cuda,
    no_kernel_for,
    same_alignment,
    size_of_device,
)
from ._split_rows import parts_of_row

_SOURCE = Path(__file__).with_name("softmax.cu")
_LONGEST = 2**30  # columns that the kernels' 32-bit column index reaches


def softmax(x: Array, axis: int = -1) -> Array:
    """``y = exp(x - max(x)) / sum(exp(x - max(x)))`` along ``axis``.

    A slice of -inf gives 0. NaN or +inf gives NaN in its slice and nowhere else. The result is a new C-contiguous
    array; on a CUDA device an ``x`` that is not C-contiguous is copied first. float16 and bfloat16 are computed in
    float32, on the CPU slowly.

    Args:
        x: logits, any shape with at least one axis; float16, bfloat16, float32 or float64.
        axis: the axis whose elements add up to 1.
    Returns:
        probabilities, the shape, dtype and device of ``x``.
    Raises:
        TypeError: ``x`` is not floating point, or ``axis`` is not an integer.
        ValueError: ``x`` has no axis, or ``axis`` is out of range.
    """
    return _forward("softmax", x, axis)


def softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """``dx = y * (dy - sum(y * dy))`` along ``axis``: the gradient of the logits of ``y = softmax(x, axis)``.

    Args:
        dy: gradient of ``y``, of its shape and dtype.
        y: what :func:`softmax` returned.
        axis: the axis that was given to it.
    Returns:
        gradient of ``x``, a new array of the shape, dtype and device of ``y``.
    Raises:
        TypeError: ``y`` is not floating point, ``dy`` has another dtype, or ``axis`` is not an integer.
        ValueError: the shapes differ, ``y`` has no axis, or ``axis`` is out of range.
    """
    return _backward("softmax", dy, y, axis)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """``y = x - log(sum(exp(x)))`` along ``axis``: the logarithm of :func:`softmax`, without forming it.

    A slice of -inf stays -inf. Everything else is as in :func:`softmax`.
    """
    return _forward("log_softmax", x, axis)


def log_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """``dx = dy - exp(y) * sum(dy)`` along ``axis``: the gradient of the logits of ``y = log_softmax(x, axis)``.

    Arguments, result and errors are those of :func:`softmax_backward`.
    """
    return _backward("log_softmax", dy, y, axis)


def _forward(function: str, x: Array, axis: int) -> Array:
    backend = backend_of(x)
    axis = _check(function, x, axis)
    y = backend.empty(x.shape, x.dtype, backend.device_of(x))
    if not x.size:
        return y
    if backend.runs_cuda:
        x = contiguous(backend, x)
        plans = _select_forward(function, x, y, axis)
        if plans[0].kernel:
            _launch(backend, plans, (x,), y)
            return y
    elif _has_fast_rows(backend, x, axis):
        rows = (-1, x.shape[axis])
        forward = softmax_numpy.softmax_rows if function == "softmax" else softmax_numpy.log_softmax_rows
        forward(x.reshape(rows), y.reshape(rows))
        return y
    return (softmax_definition if function == "softmax" else log_softmax_definition)(x, axis)


def _backward(function: str, dy: Array, y: Array, axis: int) -> Array:
    backend = common_backend(dy, y)
    axis = _check_backward(function, dy, y, axis)
    dx = backend.empty(y.shape, y.dtype, backend.device_of(y))
    if not y.size:
        return dx
    soft = function == "softmax"
    if backend.runs_cuda:
        dy, y = contiguous(backend, dy), contiguous(backend, y)
        plans = _select_backward(function, dy, y, dx, axis)
        if plans[0].kernel:
            _launch(backend, plans, (dy, y), dx)
            return dx
    elif _has_fast_rows(backend, y, axis):
        rows = (-1, y.shape[axis])
        backward = softmax_numpy.softmax_rows_backward if soft else softmax_numpy.log_softmax_rows_backward
        backward(dy.reshape(rows), y.reshape(rows), dx.reshape(rows))
        return dx
    return (softmax_backward_definition if soft else log_softmax_backward_definition)(dy, y, axis)


def _launch(backend: Backend, plans: Plans, read: tuple[Array, ...], written: Array) -> None:
    *parts, last = plans
    if not parts:
        launch(_SOURCE, last, backend, *read, written)
        return
    partial = backend.empty((last.grid, 2), np.float32, backend.device_of(written))
    launch(_SOURCE, parts[0], backend, *read, partial)
    launch(_SOURCE, last, backend, *read, partial, written)


def _has_fast_rows(backend: Backend, x: Array, axis: int) -> bool:
    """Whether ``softmax_numpy`` takes slices along this axis."""
    return backend.xp is np and x.dtype.itemsize >= 4 and math.prod(x.shape[axis + 1 :]) == 1


def softmax_definition(x: Array, axis: int = -1) -> Array:
    """The definition in array operations, for every dtype and backend; statistics in float32 or better."""
    xp = backend_of(x).xp
    wide = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
    lowest = float(np.finfo(wide.dtype).min)  # not -inf: a slice of -inf then forms no inf - inf
    with np.errstate(all="ignore"):  # NumPy warns of +inf - inf, whose NaN is meant
        y = wide - xp.maximum(wide.max(axis=axis, keepdims=True), lowest)
        xp.exp(y, out=y)
        y /= xp.maximum(y.sum(axis=axis, keepdims=True), 1.0)  # the largest logit adds 1: only slices of -inf have less
    return y.astype(x.dtype, copy=False)


def softmax_backward_definition(dy: Array, y: Array, axis: int = -1) -> Array:
    """The derivative in array operations, for every dtype and backend; the sum in float32 or better."""
    xp = backend_of(y).xp
    wide_dy, wide_y = (a.astype(xp.float32) if a.dtype.itemsize == 2 else a for a in (dy, y))
    with np.errstate(all="ignore"):
        dx = wide_dy - (wide_dy * wide_y).sum(axis=axis, keepdims=True)
        dx *= wide_y
    return dx.astype(y.dtype, copy=False)


def log_softmax_definition(x: Array, axis: int = -1) -> Array:
    """The definition in array operations, for every dtype and backend; statistics in float32 or better."""
    xp = backend_of(x).xp
    wide = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
    lowest = float(np.finfo(wide.dtype).min)  # as in softmax_definition
    with np.errstate(all="ignore"):
        y = wide - xp.maximum(wide.max(axis=axis, keepdims=True), lowest)
        y -= xp.log(xp.maximum(xp.exp(y).sum(axis=axis, keepdims=True), 1.0))
        return y.astype(x.dtype, copy=False)


def log_softmax_backward_definition(dy: Array, y: Array, axis: int = -1) -> Array:
    """The derivative in array operations, for every dtype and backend; the sum in float32 or better."""
    xp = backend_of(y).xp
    wide_dy, wide_y = (a.astype(xp.float32) if a.dtype.itemsize == 2 else a for a in (dy, y))
    with np.errstate(all="ignore"):
        dx = xp.exp(wide_y)
        dx *= wide_dy.sum(axis=axis, keepdims=True)
        return (wide_dy - dx).astype(y.dtype, copy=False)


# -- checks ----------------------------------------------------------------------------------------------------------


def _check(function: str, x: Array, axis: int) -> int:
    """The axis counted from the front, or an error that says what is wrong."""
    if not is_float(x.dtype):
        raise TypeError(f"{function}: x must be floating point, one of {', '.join(FLOATS)}, got {x.dtype}")
    try:
        axis = index(axis)
    except TypeError:
        raise TypeError(f"{function}: axis must be an integer, got {axis!r}") from None
    ndim = x.ndim
    if ndim == 0:
        raise ValueError(f"{function}: x must have at least one axis, got shape ()")
    if not -ndim <= axis < ndim:
        raise ValueError(f"{function}: axis must be in {-ndim} … {ndim - 1} for shape {x.shape}, got axis={axis}")
    return axis % ndim


def _check_backward(function: str, dy: Array, y: Array, axis: int) -> int:
    if dy.shape != y.shape:
        raise ValueError(f"{function}_backward: dy and y must have one shape, got dy {dy.shape} and y {y.shape}")
    if dy.dtype != y.dtype:
        raise TypeError(f"{function}_backward: dy and y must have one dtype, got dy {dy.dtype} and y {y.dtype}")
    return _check(f"{function}_backward", y, axis)


# -- the choice of a kernel ------------------------------------------------------------------------------------------
# Rows that fit the registers of THREADS threads with PACKS packs each, as (packs in the row at most, THREADS, PACKS),
# by elements in a pack. tests/test_compile.py compiles every line; none has been tuned on hardware yet.
_NARROW = ((1, 1, 1), (2, 1, 2), (4, 1, 4), (8, 2, 4), (16, 4, 4), (32, 8, 4))  # single elements, cols <= 32
_BLOCKS = ((512, 128, 4), (1024, 256, 4), (2048, 512, 4))
_IN_REGISTERS = {
    1: ((128, 32, 4), (512, 128, 4), (1024, 128, 8), (4096, 512, 8)),
    4: ((16, 8, 2), (32, 8, 4), (64, 16, 4), (128, 32, 4), (256, 32, 8), *_BLOCKS, (4096, 512, 8)),
    8: ((16, 16, 1), (32, 16, 2), (64, 16, 4), (128, 32, 4), (256, 128, 2), *_BLOCKS),
}
_STREAMED = {1: (512, 4), 4: (512, 4), 8: (512, 2)}  # THREADS, PACKS
_SPLIT = {1: (256, 4), 4: (256, 4), 8: (256, 2)}  # likewise
_CACHE = 112 << 10  # bytes of shared memory for a row, so that two blocks fit a multiprocessor of sm_90
_SMALLEST_BLOCK = 128  # threads; kBlock in softmax.cu
_FEW_COLUMNS = 16  # elements along a strided axis that one thread walks alone
_ENOUGH_TILES = 1 << 13  # 16-byte columns that keep a device busy; with fewer, each thread takes one column


@explained("softmax")
def _explain_softmax(x: Array, axis: int = -1) -> Plans:
    return _explain_forward("softmax", x, axis)


@explained("log_softmax")
def _explain_log_softmax(x: Array, axis: int = -1) -> Plans:
    return _explain_forward("log_softmax", x, axis)


def _explain_forward(function: str, x: Array, axis: int) -> Plans:
    backend = backend_of(x)
    axis = _check(function, x, axis)
    if not x.size or not backend.runs_cuda:
        return Plans.definition(_why_no_kernel(backend, x))
    copied = "" if x.flags.c_contiguous else "x is not C-contiguous and copied first; "
    x = contiguous(backend, x)
    plans = _select_forward(function, x, backend.empty(x.shape, x.dtype, backend.device_of(x)), axis)
    return plans.after(copied)


@explained("softmax_backward")
def _explain_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Plans:
    return _explain_backward("softmax", dy, y, axis)


@explained("log_softmax_backward")
def _explain_log_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Plans:
    return _explain_backward("log_softmax", dy, y, axis)


def _explain_backward(function: str, dy: Array, y: Array, axis: int) -> Plans:
    backend = common_backend(dy, y)
    axis = _check_backward(function, dy, y, axis)
    if not y.size or not backend.runs_cuda:
        return Plans.definition(_why_no_kernel(backend, y))
    copied = "".join(
        f"{name} is not C-contiguous and copied first; "
        for name, array in (("dy", dy), ("y", y))
        if not array.flags.c_contiguous
    )
    dy, y = contiguous(backend, dy), contiguous(backend, y)
    plans = _select_backward(function, dy, y, backend.empty(y.shape, y.dtype, backend.device_of(y)), axis)
    return plans.after(copied)


def _why_no_kernel(backend: Backend, x: Array) -> str:
    return no_cuda(backend) if x.size else "the array is empty, nothing is launched"


def _select_forward(function: str, x: Array, y: Array, axis: int) -> Plans:
    agree, size = same_alignment(x, y), size_of_device(x)
    return _select(f"{function}_forward", x.dtype, x.shape, axis, agree, aligned(x, y), size)


def _select_backward(function: str, dy: Array, y: Array, dx: Array, axis: int) -> Plans:
    agree, size = same_alignment(dy, y, dx), size_of_device(y)
    return _select(f"{function}_backward", y.dtype, y.shape, axis, agree, aligned(dy, y, dx), size)


@lru_cache(maxsize=4096)
def _select(
    function: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    axis: int,
    boundaries_agree: bool,
    all_aligned: bool,
    device: DeviceSize,
) -> Plans:
    """The kernel for C-contiguous arrays of one shape; a function of plain values, so that it is remembered."""
    ctype = c_type(dtype)
    outer, cols, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    if ctype is None:
        return Plans.definition(no_kernel_for(dtype))
    if cols > _LONGEST:
        return Plans.definition(f"axis {axis} has {cols} elements, the kernels index at most {_LONGEST}")
    widest = WIDEST_ACCESS // dtype.itemsize
    if inner == 1:
        return _select_rows(function, ctype, outer, cols, widest, boundaries_agree, device)
    return Plans((_select_strided(function, ctype, outer, cols, inner, widest, all_aligned),))


def _select_rows(
    function: str, ctype: str, rows: int, cols: int, widest: int, boundaries_agree: bool, device: DeviceSize
) -> Plans:
    scalars = (np.int64(rows), np.int32(cols))
    vector = widest if boundaries_agree and cols > _NARROW[-1][0] else 1
    single = ""
    if vector == 1:
        single = f", single elements because {'rows are short' if boundaries_agree else _DISAGREE}"
    for packs, threads, each in _NARROW if cols <= _NARROW[-1][0] else _IN_REGISTERS[vector]:
        if cols // vector <= packs:
            kernel = f"{function}_registers"
            defines = ("REGISTERS", f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={each}")
            per_block = max(1, _SMALLEST_BLOCK // threads)
            because = f"a row of {cols} fits the registers of {threads} threads, one read and one write{single}"
            grid = blocks(kernel, rows, per_block)
            return Plans((Plan(kernel, defines, grid, threads * per_block, scalars, because),))
    if (cut := parts_of_row(rows, cols, device.multiprocessors)) is not None:
        parts, chunk = cut
        threads, each = _SPLIT[vector]
        defines = ("SPLIT", f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={each}")
        because = f"{rows} rows of {cols} do not fill the device, each is cut into {parts} parts and read twice{single}"
        kernel = f"{function}_parts" if function.endswith("backward") else "softmax_forward_parts"
        grid = blocks(kernel, rows * parts, 1)
        first = Plan(kernel, defines, grid, threads, (*scalars, np.int32(chunk), np.int32(parts)), because)
        return Plans((first, first._replace(kernel=f"{function}_split", because="puts the parts together")))
    kernel = f"{function}_streamed"
    threads, each = _STREAMED[vector]
    nbytes = cols // vector * WIDEST_ACCESS * (2 if function.endswith("backward") else 1)
    cached = vector > 1 and nbytes <= min(_CACHE, device.shared - OWN_SHARED)
    defines = ("STREAMED", f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={each}")
    how = "is kept in shared memory, one read and one write" if cached else "is read twice"
    because = f"a row of {cols} does not fit the registers of a block and {how}{single}"
    plan = Plan(kernel, (*defines, f"CACHED={int(cached)}"), blocks(kernel, rows, 1), threads, scalars, because)
    return Plans((plan._replace(shared=nbytes) if cached else plan,))


_DISAGREE = "the arrays' addresses differ modulo 16"


def _select_strided(
    function: str, ctype: str, outer: int, cols: int, inner: int, widest: int, all_aligned: bool
) -> Plan:
    kernel = f"{function}_strided"
    width, depth = (128, 1) if cols <= _FEW_COLUMNS else (32, 8)
    single = ""
    if not all_aligned:
        single = "an array does not start on a 16-byte boundary"
    elif inner % widest:
        single = f"the {inner} elements behind the axis are no multiple of {widest}"
    elif outer * inner // widest < _ENOUGH_TILES:
        single = f"{outer * inner} columns are too few to give a thread several"
    vector = 1 if single else widest
    packs = 4 if vector == 1 else 2
    defines = ("STRIDED", f"DTYPE={ctype}", f"VECTOR={vector}", f"WIDTH={width}", f"DEPTH={depth}", f"PACKS={packs}")
    because = f"the axis is not the last, so {depth} thread{'s' * (depth > 1)} for {vector} column{'s' * (vector > 1)}"
    because += f" read twice without a transposed copy{', single elements because ' * bool(single)}{single}"
    scalars = (np.int64(outer), np.int32(cols), np.int64(inner))
    grid = blocks(kernel, outer * inner // vector, width)
    return Plan(kernel, defines, grid, width * depth, scalars, because)
