"""Average pooling, resizing, padding and their gradients on plain arrays; the CUDA kernel is in ``resample.cu``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, Device, backend_of, empty_images, in_format, is_channels_last
from . import resample_numpy
from ._launch import (
    Plan,
    aligned,
    blocks,
    c_type,
    definition_plan,
    elements_at_a_time,
    explained,
    launch,
    no_cuda,
    no_kernel_for,
)
from .image_axes import Axis, as_images, check_images, out_shape, taps, three, transposed

_SOURCE = Path(__file__).with_name("resample.cu")


def resample(x: Array, axes: Sequence[Axis]) -> Array:
    """Every output a weighted sum of a few inputs, along each spatial axis: what the axes say.

    The result keeps the memory format of ``x``; on a CUDA device one with gaps is copied first. 16-bit floats are
    summed in float32.

    Args:
        x: shape ``(N, C, ...)`` with one to three spatial axes; float16, bfloat16, float32 or float64.
        axes: of each spatial axis how its outputs are made, from ``image_axes.py``.
    Returns:
        ``y``, shape ``(N, C, ...)``.
    Raises:
        TypeError: ``x`` is not floating. ValueError: ``x`` and ``axes`` do not fit.
    """
    check_images("resample", x, axes)
    return _apply(x, out_shape(x.shape, axes), axes, False)


def resample_backward(dy: Array, shape: tuple[int, ...], axes: Sequence[Axis]) -> Array:
    """The gradient of ``x``: each ``dy`` goes to its inputs, times their weights.

    Args:
        dy: gradient of ``y``, of its shape.
        shape: of ``x``.
        axes: what :func:`resample` was given.
    Returns:
        ``dx`` in the memory format of ``dy``.
    """
    check_images("resample_backward", dy, axes, shape)
    return _apply(dy, shape, axes, True)


def _apply(x: Array, shape: tuple[int, ...], axes: Sequence[Axis], back: bool) -> Array:
    backend = backend_of(x)
    device, last = backend.device_of(x), is_channels_last(x)
    y = empty_images(backend, shape, x.dtype, device, last)
    if not y.size:
        return y
    if not x.size:
        y[...] = 0
        return y
    if backend.runs_cuda:
        if c_type(x.dtype) is None:
            return in_format(_definition(x, axes, back), last)
        x = in_format(x, last)
        tables = (_table(backend, device, axis, back, kind) for kind in range(3) for axis in three(axes))
        launch(_SOURCE, _select(x, y, last, axes, back), backend, x, *tables, y)
        return y
    x = in_format(x, last)
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    out = y if wide is x else empty_images(backend, shape, wide.dtype, device, last)
    (resample_numpy.backward if back else resample_numpy.forward)(as_images(wide, last), axes, as_images(out, last))
    return out.astype(x.dtype, copy=False)


def _definition(x: Array, axes: Sequence[Axis], back: bool) -> Array:
    """In array operations, for dtypes without a kernel: one axis after another, tap by tap."""
    xp = backend_of(x).xp
    for number, axis in enumerate(axes, start=2):
        if axis.is_identity:
            continue
        index, weight, divisor = _numbers(axis, back)
        y: Any = 0.0
        for k in range(index.shape[1]):
            found = xp.take(x, xp.asarray(np.maximum(index[:, k], 0)), axis=number)
            column = (-1, *(1,) * (x.ndim - 1 - number))
            scaled = found * xp.asarray(weight[:, k].astype(x.dtype)).reshape(column)
            y = y + xp.where(xp.asarray(index[:, k] >= 0).reshape(column), scaled, 0.0)
        x = (y / xp.asarray(divisor.astype(x.dtype)).reshape(column)).astype(x.dtype, copy=False)
    return x


def _numbers(axis: Axis, back: bool) -> tuple[Any, Any, Any]:
    """Indices and weights of the inputs, and divisors, as the kernel takes them."""
    if back:
        index, _, weight = transposed(axis)
        return index, weight, np.ones(axis.length)
    table = taps(axis)
    weight = np.ones(table.index.shape) if table.weight is None else table.weight
    return table.index, weight, np.ones(axis.out) if table.divisor is None else table.divisor


@lru_cache(maxsize=1024)
def _table(backend: Backend, device: Device, axis: Axis, back: bool, kind: int) -> Array:
    """Indices, weights or divisors of an axis on its device; kept, so that they are moved there once."""
    values = _numbers(axis, back)[kind]
    return backend.from_numpy(np.ascontiguousarray(values, np.int32 if kind == 0 else np.float32), device)


# -- the choice of a kernel --------------------------------------------------------------------------------------------
_BLOCK = 128  # threads; kBlock in resample.cu
_MANY = 32  # inputs of a result along the last axis that a warp divides


def _select(x: Array, y: Array, last: bool, axes: Sequence[Axis], back: bool) -> Plan:
    return _plan(x.dtype, x.shape, last, three(axes), back, aligned(x, y))


@lru_cache(maxsize=4096)
def _plan(
    dtype: Any, shape: tuple[int, ...], last: bool, axes: tuple[Axis, ...], back: bool, all_aligned: bool
) -> Plan:
    images, channels = (shape[0], shape[1]) if last else (shape[0] * shape[1], 1)
    vector, why = elements_at_a_time(dtype, all_aligned, (channels, "channels"))
    depth = [_numbers(axis, back)[0].shape[1] for axis in axes]
    because, lanes = f"{'channels-last' if last else 'contiguous'} {shape}", 1
    if why:
        because += f", single elements because {why if last else 'neighbours in a plane have different inputs'}"
    if not last and depth[2] >= _MANY:
        lanes = 32
        because += f"; a warp shares the {depth[2]} inputs of a result along the last axis"
    lengths, outs = [axis.length for axis in axes], [axis.out for axis in axes]
    if back:
        lengths, outs = outs, lengths
    sizes = [np.int32(size) for size in (*lengths, *outs, *depth)]
    scalars: tuple[Any, ...] = (np.int64(images), np.int64(channels), *sizes)
    defines = (f"LANES={lanes}", f"DTYPE={c_type(dtype)}", f"VECTOR={vector}")
    results = images * channels * math.prod(outs) // vector
    return Plan("resample", defines, blocks("resample", results, _BLOCK // lanes), _BLOCK, scalars, because)


@explained("resample")
def _explain_forward(x: Array, axes: Sequence[Axis]) -> Plan:
    check_images("resample", x, axes)
    return _explain(x, out_shape(x.shape, axes), axes, False)


@explained("resample_backward")
def _explain_backward(dy: Array, shape: tuple[int, ...], axes: Sequence[Axis]) -> Plan:
    check_images("resample_backward", dy, axes, shape)
    return _explain(dy, shape, axes, True)


def _explain(x: Array, shape: tuple[int, ...], axes: Sequence[Axis], back: bool) -> Plan:
    backend, last = backend_of(x), is_channels_last(x)
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    if not x.size or not math.prod(shape):
        return definition_plan("there is nothing to compute, nothing is launched")
    if c_type(x.dtype) is None:
        return definition_plan(no_kernel_for(x.dtype))
    given = in_format(x, last)
    y = empty_images(backend, shape, x.dtype, backend.device_of(x), last)
    plan = _select(given, y, last, axes, back)
    return plan if given is x else plan._replace(because=f"the array has gaps and is copied first; {plan.because}")
