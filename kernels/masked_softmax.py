"""Softmax of scaled and masked scores with dropout, and its derivative; CUDA kernels: ``masked_softmax.cu``."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, random_bits
from ._launch import (
    WIDEST_ACCESS,
    Plan,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    explained,
    launch,
    no_cuda,
    no_kernel_for,
    same_alignment,
    stream_place,
)
from .scalars import real
from .softmax import _check as check_axis
from .softmax import softmax, softmax_backward

_SOURCE = Path(__file__).with_name("masked_softmax.cu")
_LONGEST = 2**30  # columns that the kernels' 32-bit column index reaches


class _Options(NamedTuple):
    scale: float
    p: float
    key: int
    offset: int


def masked_softmax(
    x: Array,
    mask: Array | None = None,
    *,
    axis: int = -1,
    scale: float = 1.0,
    p: float = 0.0,
    key: int = 0,
    offset: int = 0,
) -> Array:
    """``y = keep * softmax(scale * x + mask)`` along ``axis``; ``keep`` is 0 with probability ``p``, else ``1/(1-p)``.

    A slice of which nothing is visible gives 0. Element ``i`` of ``x`` is kept where word ``offset + i`` of the stream
    ``key`` is at least ``p * 2**32``: the mask that dropout draws on an array of this shape, on every device.

    Args:
        x: scores, any shape with at least one axis; float16, bfloat16, float32 or float64.
        mask: broadcastable to ``x``: boolean, True where a score takes part, or of the dtype of ``x``, added to the
            scaled scores.
        axis: the axis whose elements add up to 1 before dropout.
        scale: multiplies the scores.
        p: probability of dropping, in [0, 1].
        key, offset: where dropout's random words begin; see :meth:`lamella.Generator.reserve`.
    Returns:
        a new array of the shape, dtype and device of ``x``.
    Raises:
        TypeError, ValueError: as :func:`softmax`; the mask does not fit; ``p`` is not in [0, 1].
    """
    backend, axis, options = check_masked("masked_softmax", x, mask, axis, scale, p, key, offset)
    x = contiguous(backend, x)
    y = backend.empty(x.shape, x.dtype, backend.device_of(x))
    plan = _plan(backend, "masked_softmax_forward", axis, x, y)
    if not plan.kernel:
        y = _probabilities(backend, x, mask, axis, options)
        return y if not p else _dropped(backend, y, options)
    _launch(backend, plan, x, mask, options, 1.0, (x,), y)
    return y


def masked_softmax_backward(
    dy: Array,
    x: Array,
    mask: Array | None = None,
    *,
    axis: int = -1,
    scale: float = 1.0,
    p: float = 0.0,
    key: int = 0,
    offset: int = 0,
    factor: float | None = None,
) -> Array:
    """``dx = factor * s * (g - sum(s * g))`` with ``s = softmax(scale * x + mask)`` and ``g = keep * dy``.

    The probabilities are formed anew, so nothing but ``x`` has to be kept from the way forward.

    Args:
        dy: gradient of ``y``, of the shape and dtype of ``x``.
        factor: ``scale``, the default, gives the gradient of ``x``; 1 gives that of an additive mask, before it is
            summed over the axes that were broadcast.
        Others: as given to :func:`masked_softmax`.
    Returns:
        a new array of the shape, dtype and device of ``x``.
    """
    backend, axis, options = check_masked("masked_softmax_backward", x, mask, axis, scale, p, key, offset)
    if dy.shape != x.shape or dy.dtype != x.dtype:
        raise ValueError(
            f"masked_softmax_backward: dy must be {x.dtype} of shape {x.shape} as x is, got {dy.dtype} of {dy.shape}"
        )
    common_backend(dy, x)
    factor = scale if factor is None else factor
    dy, x = contiguous(backend, dy), contiguous(backend, x)
    dx = backend.empty(x.shape, x.dtype, backend.device_of(x))
    plan = _plan(backend, "masked_softmax_backward", axis, x, dy, dx)
    if not plan.kernel:
        y = _probabilities(backend, x, mask, axis, options)
        dx = softmax_backward(dy if not p else _dropped(backend, dy.copy(), options), y, axis)
        if factor != 1.0:
            dx *= factor
        return dx
    _launch(backend, plan, x, mask, options, factor, (dy, x), dx)
    return dx


# -- in array operations ---------------------------------------------------------------------------------------------


def _probabilities(backend: Backend, x: Array, mask: Array | None, axis: int, options: _Options) -> Array:
    """The definition before dropout, for every dtype, axis and backend."""
    xp, dtype = backend.xp, x.dtype
    z = x.astype("float32") if dtype.itemsize == 2 else x
    with np.errstate(all="ignore"):  # NumPy warns of infinities, which are meant
        if options.scale != 1.0:
            z = z * options.scale
        if mask is not None:
            z = xp.where(mask, z, z.dtype.type(-math.inf)) if mask.dtype == bool else z + mask.astype(z.dtype)
        return softmax(z, axis).astype(dtype, copy=False)


def _dropped(backend: Backend, y: Array, options: _Options) -> Array:
    """``y *= keep``, in place; the words belong to the elements in C order."""
    words = random_bits(options.key, options.offset, y.size, backend.device_of(y)).reshape(y.shape)
    y *= words >= _threshold(options.p) if options.p < 1 else False
    y *= _kept(options.p)
    return y


def _threshold(p: float) -> int:
    return round(p * 2.0**32)


def _kept(p: float) -> float:
    return 1.0 / (1.0 - p) if p < 1 else 0.0


# -- checks ----------------------------------------------------------------------------------------------------------


def check_masked(
    function: str, x: Array, mask: Array | None, axis: int, scale: float, p: float, key: int = 0, offset: int = 0
) -> tuple[Backend, int, _Options]:
    """What is known of a call, or an error that says what is wrong; nothing is computed, nothing drawn."""
    axis = check_axis(function, x, axis)
    backend = backend_of(x)
    if mask is not None:
        common_backend(x, mask)
        ends = zip(reversed(mask.shape), reversed(x.shape), strict=False)
        if mask.ndim > x.ndim or not all(a in (1, b) for a, b in ends):
            raise ValueError(f"{function}: mask must have a shape that broadcasts to {x.shape}, got {mask.shape}")
        if mask.dtype != bool and mask.dtype != x.dtype:
            raise TypeError(f"{function}: mask must be boolean or {x.dtype} as x is, got {mask.dtype}")
    p, scale = real(function, "p", p), real(function, "scale", scale)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{function}: p must be in [0, 1], got {p}")
    if not math.isfinite(scale):
        raise ValueError(f"{function}: scale must be finite, got {scale}")
    return backend, axis, _Options(scale, p, key, offset)


# -- the choice of a kernel ------------------------------------------------------------------------------------------
# Rows that fit the registers of THREADS threads with PACKS packs each, as (packs in the row at most, THREADS, PACKS),
# by elements in a pack; and PACKS of the streamed variant. None has been tuned on hardware yet.
_IN_REGISTERS = {
    1: ((32, 8, 4), (1024, 256, 4)),
    4: ((128, 32, 4), (1024, 512, 2)),
    8: ((64, 32, 2), (512, 512, 1)),
}
_STREAMED = {1: 4, 4: 1, 8: 1}
_STREAM_THREADS = 512
_FEW_COLUMNS = 32  # a row that single elements serve better


def _plan(backend: Backend, kernel: str, axis: int, x: Array, *others: Array) -> Plan:
    if not backend.runs_cuda or not x.size:
        return definition_plan(no_cuda(backend) if x.size else "the array is empty")
    return _select(kernel, x.dtype, x.shape, axis, same_alignment(x, *others))


@lru_cache(maxsize=4096)
def _select(kernel: str, dtype: Any, shape: tuple[int, ...], axis: int, boundaries_agree: bool) -> Plan:
    """The kernel for C-contiguous arrays; a function of plain values, so that it is remembered."""
    ctype, cols = c_type(dtype), shape[axis]
    if ctype is None:
        return definition_plan(no_kernel_for(dtype))
    if math.prod(shape[axis + 1 :]) != 1:
        return definition_plan(f"axis {axis} is not the last; softmax has a kernel for that, beside array operations")
    if cols > _LONGEST:
        return definition_plan(f"axis {axis} has {cols} elements, the kernels index at most {_LONGEST}")
    rows = math.prod(shape[:axis])
    vector, single = WIDEST_ACCESS // dtype.itemsize, ""
    if not boundaries_agree:
        vector, single = 1, ", single elements because the arrays' addresses differ modulo 16"
    elif cols <= _FEW_COLUMNS:
        vector, single = 1, ", single elements because rows are short"
    scalars = (np.int64(rows), np.int32(cols))
    for packs, threads, each in _IN_REGISTERS[vector]:
        if cols // vector <= packs:
            defines = ("REGISTERS", f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={each}")
            per_block = max(1, 128 // threads)
            because = f"a row of {cols} fits the registers of {threads} threads, one read and one write{single}"
            return Plan(kernel, defines, blocks(kernel, rows, per_block), threads * per_block, scalars, because)
    defines = (
        "STREAMED", f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={_STREAM_THREADS}", f"PACKS={_STREAMED[vector]}",
    )  # fmt: skip
    because = f"a row of {cols} does not fit the registers of a block and is read twice{single}"
    return Plan(kernel, defines, blocks(kernel, rows, 1), _STREAM_THREADS, scalars, because)


def _launch(
    backend: Backend, plan: Plan, x: Array, mask: Array | None, options: _Options, factor: float,
    read: tuple[Array, ...], written: Array,
) -> None:  # fmt: skip
    places: tuple[int, ...] = (1, 1, 0, 0, 0, 0)
    if mask is not None:
        mask, places = _mask_places(backend, mask, x.shape)
    visible, added = (mask, None) if mask is not None and mask.dtype == bool else (None, mask)
    *long, across = places
    threshold = _threshold(options.p)
    dropping = np.uint32(min(threshold, 2**32 - 1))  # p = 1 keeps one word in 2**32, times a factor of 0
    scalars = (
        *plan.scalars,
        *map(np.int64, long),
        np.int32(across),
        np.float32(options.scale),
        np.float32(factor),
        np.float32(_kept(options.p)),
        dropping,
        *stream_place(options.key, options.offset),
    )
    launch(_SOURCE, plan._replace(scalars=scalars), backend, *read, visible, added, written)


def _mask_places(backend: Backend, mask: Array, shape: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """A contiguous mask, and where in it a row begins: ``(n1, n2, s0, s1, s2, across)`` of ``masked_softmax.cu``.

    Axes that lie in one line are one; a mask that still needs more than three is written out.
    """
    mask = contiguous(backend, mask)
    steps = [0] * (len(shape) - mask.ndim)
    for i, length in enumerate(mask.shape):
        steps.append(math.prod(mask.shape[i + 1 :]) if length != 1 else 0)
    lines: list[tuple[int, int]] = []  # (length, step) of the axes before the last, those in one line put together
    for length, step in zip(shape[:-1], steps[:-1], strict=True):
        if length == 1:
            continue
        if lines and lines[-1][1] == length * step:
            lines[-1] = (lines[-1][0] * length, step)
        else:
            lines.append((length, step))
    if len(lines) > 3:
        return _mask_places(backend, backend.xp.ascontiguousarray(backend.xp.broadcast_to(mask, shape)), shape)
    lines = [(1, 0)] * (3 - len(lines)) + lines
    (_, s0), (n1, s1), (n2, s2) = lines
    return mask, (n1, n2, s0, s1, s2, steps[-1])


@explained("masked_softmax_backward")
def _explain_backward(dy: Array, x: Array, mask: Array | None = None, *, axis: int = -1, **given: Any) -> Plan:
    values = {"scale": 1.0, "p": 0.0, "key": 0, "offset": 0, "factor": None, **given}
    del values["factor"]
    backend, axis, _ = check_masked("masked_softmax_backward", x, mask, axis, **values)
    dy, x = contiguous(backend, dy), contiguous(backend, x)
    dx = backend.empty(x.shape, x.dtype, backend.device_of(x))
    return _plan(backend, "masked_softmax_backward", axis, x, dy, dx)


@explained("masked_softmax")
def _explain(
    x: Array,
    mask: Array | None = None,
    *,
    axis: int = -1,
    scale: float = 1.0,
    p: float = 0.0,
    key: int = 0,
    offset: int = 0,
) -> Plan:
    backend, axis, _ = check_masked("masked_softmax", x, mask, axis, scale, p, key, offset)
    copied = "" if x.flags.c_contiguous or not backend.runs_cuda else "x is not C-contiguous and copied first; "
    x = contiguous(backend, x)
    plan = _plan(backend, "masked_softmax_forward", axis, x, backend.empty(x.shape, x.dtype, backend.device_of(x)))
    return plan._replace(because=copied + plan.because)
