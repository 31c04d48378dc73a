"""The gated linear unit on plain arrays; the CUDA kernels are in ``glu.cu``."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, backend_of, common_backend
from ._launch import (
    Plan,
    aligned,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    elements_at_a_time,
    explained,
    launch,
    no_cuda,
    no_kernel_for,
)
from .elementwise import over_rows

_SOURCE = Path(__file__).with_name("glu.cu")
_THREADS = 256


def glu(x: Array, axis: int = -1) -> tuple[Array, Array | None]:
    """``y = a s`` with ``s = 1 / (1 + exp(-b))``, ``a`` and ``b`` the first and second half of ``x`` along ``axis``.

    Args:
        x: floating, an even number of elements along ``axis``; 16-bit floats are computed in float32.
        axis: the axis that is halved.
    Returns:
        y, a new C-contiguous array, half as long along ``axis``; and s for :func:`glu_backward`, or None where a kernel
        forms it again.
    Raises:
        ValueError: the number of elements along ``axis`` is odd, or there is no such axis.
    Source: Dauphin et al. 2017, arXiv 1612.08083.
    """
    axis, (outer, half) = _halves(x, axis)
    backend = backend_of(x)
    shape = (*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :])
    x = contiguous(backend, x)
    if (plan := _select("glu_forward", x, outer, half)).kernel:
        y = backend.empty(shape, x.dtype, backend.device_of(x))
        launch(_SOURCE, plan, backend, x, y)
        return y, None
    wide: Any = "float32" if x.dtype.itemsize == 2 else x.dtype
    y, s = (backend.empty((outer, half), wide, backend.device_of(x)) for _ in range(2))
    over_rows(_forward, x.reshape(outer, 2, half).astype(wide, copy=False), y, s)
    return y.astype(x.dtype, copy=False).reshape(shape), s


def glu_backward(dy: Array, x: Array, y: Array, s: Array | None, axis: int = -1) -> Array:
    """``da = dy s`` and ``db = dy y (1 - s)``: the gradient of ``x``.

    Args:
        dy: gradient of ``y``, of its shape and dtype.
        x, axis: what :func:`glu` was given. y, s: what it returned.
    """
    axis, (outer, half) = _halves(x, axis)
    backend = common_backend(dy, x)
    if dy.size * 2 != x.size or dy.dtype != x.dtype:
        raise ValueError(f"glu_backward: dy must be {x.dtype} and half of x, {x.shape}, got {dy.dtype} of {dy.shape}")
    shape, dy, x = x.shape, contiguous(backend, dy), contiguous(backend, x)
    if s is None:
        plan = _select("glu_backward", x, outer, half, aligned(dy))
        dx = backend.empty(shape, x.dtype, backend.device_of(x))
        launch(_SOURCE, plan, backend, dy, x, dx)
        return dx
    wide: Any = "float32" if x.dtype.itemsize == 2 else x.dtype
    dx = backend.empty((outer, 2, half), wide, backend.device_of(x))
    rows = (a.reshape(outer, half).astype(wide, copy=False) for a in (dy, y))
    over_rows(_backward, *rows, s, dx)
    return dx.astype(x.dtype, copy=False).reshape(shape)


def _forward(xp: Any, x: Array, y: Array, s: Array) -> None:
    xp.negative(x[:, 1], out=s)
    xp.exp(s, out=s)
    s += 1.0
    xp.divide(1.0, s, out=s)
    xp.multiply(x[:, 0], s, out=y)


def _backward(xp: Any, dy: Array, y: Array, s: Array, dx: Array) -> None:
    xp.multiply(dy, s, out=dx[:, 0])
    db = dx[:, 1]
    xp.subtract(1.0, s, out=db)
    db *= y
    db *= dy


def _halves(x: Array, axis: int) -> tuple[int, tuple[int, int]]:
    """The axis from the front, and the array as rows of two halves."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"glu: axis must be one of the {x.ndim} axes of x, got axis={axis}")
    axis %= x.ndim
    if x.shape[axis] % 2:
        raise ValueError(f"glu: x must have an even number of elements along axis {axis}, got shape {x.shape}")
    return axis, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]) // 2)


@explained("glu")
def _explain(x: Array, axis: int = -1) -> Plan:
    _, (outer, half) = _halves(x, axis)
    return _select("glu_forward", contiguous(backend_of(x), x), outer, half)


@explained("glu_backward")
def _explain_backward(dy: Array, x: Array, y: Array, s: Array | None = None, axis: int = -1) -> Plan:
    _, (outer, half) = _halves(x, axis)
    backend = common_backend(dy, x)
    return _select("glu_backward", contiguous(backend, x), outer, half, aligned(contiguous(backend, dy)))


def _select(function: str, x: Array, rows: int, half: int, wide: bool = True) -> Plan:
    backend = backend_of(x)
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    if not x.size:
        return definition_plan("the array is empty, nothing is launched")
    return _plan(function, x.dtype, rows, half, wide and aligned(x))


@lru_cache(maxsize=1024)
def _plan(function: str, dtype: np.dtype, rows: int, half: int, wide: bool) -> Plan:
    ctype = c_type(dtype)
    if ctype is None:
        return definition_plan(no_kernel_for(dtype))
    vector, why = elements_at_a_time(dtype, wide, (half, "elements of a half"))
    single = f", because {why}" if why else ""
    packs = half // vector
    width = min(_THREADS, 1 << (packs - 1).bit_length())
    grid = blocks(function, rows, _THREADS // width) * -(-packs // width)
    scalars = (np.int64(rows), np.int64(half), np.int32(width))
    because = f"one read, one write, {vector} pair{'s' * (vector > 1)} at a time{single}"
    return Plan(function, (f"DTYPE={ctype}", f"VECTOR={vector}"), grid, _THREADS, scalars, because)
