"""Max pooling and its derivative on plain arrays; the CUDA kernels are in ``max_pool.cu``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, Device, backend_of, common_backend, empty_images, in_format, is_channels_last
from . import max_pool_numpy
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
from .image_axes import Axis, as_images, check_images, out_shape, taps, three, transposed, window_size

_SOURCE = Path(__file__).with_name("max_pool.cu")
_LARGEST_BYTE = 254  # window sizes whose positions, and one more, are bytes


def max_pool(x: Array, axes: Sequence[Axis], *, positions: bool = True) -> tuple[Array, Array | None]:
    """The largest value of each window, and where in its window it stands.

    Of equal values the first in row-major order is taken. NaN is larger than any number; of several the last is taken.
    A window wholly beyond the image gives -inf. The results keep the memory format of ``x``; on a CUDA device one with
    gaps is copied first.

    Args:
        x: shape ``(N, C, ...)`` with one to three spatial axes; float16, bfloat16, float32 or float64.
        axes: of each spatial axis which windows it has, made in ``image_axes.py``.
        positions: whether they are wanted; else None stands in their place.
    Returns:
        ``y``, shape ``(N, C, ...)``; positions of the same shape, uint8 or int32, counted row-major in the window: what
        :func:`max_pool_backward` and :func:`max_pool_indices` need.
    Raises:
        TypeError: ``x`` is not floating. ValueError: ``x`` and ``axes`` do not fit.
    """
    check_images("max_pool", x, axes)
    backend = backend_of(x)
    last = is_channels_last(x)
    shape = out_shape(x.shape, axes)
    device = backend.device_of(x)
    dtype = _position_dtype(axes)
    y = empty_images(backend, shape, x.dtype, device, last)
    where = empty_images(backend, shape, dtype, device, last) if positions or backend.runs_cuda else None
    if not y.size:
        return y, where
    if backend.runs_cuda and c_type(x.dtype) is None:
        y, where = (in_format(a, last) for a in _by_definition(backend, x, axes, dtype))
        return y, where if positions else None
    x = in_format(x, last)
    if not backend.runs_cuda:
        wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
        out = y if wide is x else empty_images(backend, shape, wide.dtype, device, last)
        max_pool_numpy.forward(as_images(wide, last), axes, as_images(out, last), as_images(where, last))
        return out.astype(x.dtype, copy=False), where
    axes = three(axes)
    tables = (_table(backend, device, axis, False) for axis in axes)
    launch(_SOURCE, _select("max_pool_forward", x, y, where, last, axes), backend, x, *tables, y, where)
    return y, where if positions else None


def max_pool_backward(dy: Array, positions: Array, shape: tuple[int, ...], axes: Sequence[Axis]) -> Array:
    """The gradient of ``x``: each ``dy`` goes to the input that was the largest of its window.

    Args:
        dy: gradient of ``y``, of its shape.
        positions: what :func:`max_pool` returned.
        shape: of ``x``.
        axes: what it was given.
    Returns:
        ``dx``, a new array in the memory format of ``positions``.
    """
    backend = common_backend(dy, positions)
    check_images("max_pool_backward", dy, axes, shape)
    last = is_channels_last(positions)
    device = backend.device_of(dy)
    dx = empty_images(backend, shape, dy.dtype, device, last)
    if not dx.size:
        return dx
    if not dy.size:
        dx[...] = 0
        return dx
    if backend.runs_cuda and c_type(dy.dtype) is None:
        return _backward_by_definition(backend, dy, positions, dx, axes)
    dy, positions = in_format(dy, last), in_format(positions, last)
    if not backend.runs_cuda:
        wide = dy.astype(np.float32) if dy.dtype.itemsize == 2 else dy
        out = dx if wide is dy else empty_images(backend, shape, wide.dtype, device, last)
        max_pool_numpy.backward(as_images(wide, last), as_images(positions, last), axes, as_images(out, last))
        return out.astype(dy.dtype, copy=False)
    axes = three(axes)
    tables = (_table(backend, device, axis, True) for axis in axes)
    launch(_SOURCE, _select("max_pool_backward", dx, dy, positions, last, axes), backend, dy, positions, *tables, dx)
    return dx


def max_pool_indices(positions: Array, axes: Sequence[Axis]) -> Array:
    """Positions in windows as PyTorch's indices: int64, row-major in the plane of the input."""
    xp = backend_of(positions).xp
    index: Any = 0
    rest = positions.astype(xp.int64)
    for number, axis in enumerate(axes):
        size = window_size(axes[number + 1 :])
        table = xp.asarray(taps(axis).index.astype(np.int64))
        which = xp.minimum(rest // size, table.shape[1] - 1)
        rest = rest % size
        place = xp.arange(axis.out).reshape(-1, *(1,) * (len(axes) - 1 - number))
        index = index * axis.length + table[xp.broadcast_to(place, positions.shape), which]
    return index


# -- in array operations, for the dtypes that have no kernel -----------------------------------------------------------


def _by_definition(backend: Backend, x: Array, axes: Sequence[Axis], dtype: Any) -> tuple[Array, Array]:
    xp = backend.xp
    y = xp.full(out_shape(x.shape, axes), -math.inf, x.dtype)
    where = xp.full(y.shape, window_size(axes), dtype)
    for position, indices, valid in _every_tap(xp, axes):
        candidate = x[(..., *indices)]
        better = ((candidate > y) | xp.isnan(candidate) | (where == window_size(axes))) & valid
        y, where = xp.where(better, candidate, y), xp.where(better, dtype.type(position), where)
    return y, where


def _backward_by_definition(backend: Backend, dy: Array, positions: Array, dx: Array, axes: Sequence[Axis]) -> Array:
    dx[...] = 0
    for position, indices, valid in _every_tap(backend.xp, axes):
        mine = (positions == position) & valid
        backend.scatter_add(dx, (..., *indices), dy * mine)
    return dx


def _every_tap(xp: Any, axes: Sequence[Axis]) -> Any:
    """(position, index array for each axis, which outputs have this input) of each input of a window, row-major."""
    tables = [taps(axis).index for axis in axes]
    for position in range(window_size(axes)):
        indices: list[Any] = []
        rest, valid = position, np.ones((), bool)
        for number in range(len(axes) - 1, -1, -1):
            rest, k = divmod(rest, tables[number].shape[1])
            column = tables[number][:, k].reshape(-1, *(1,) * (len(axes) - 1 - number))
            indices.insert(0, xp.asarray(np.maximum(column, 0)))
            valid = valid & (column >= 0)
        yield position, indices, xp.asarray(valid)


# -- checks and shapes -------------------------------------------------------------------------------------------------


def _position_dtype(axes: Sequence[Axis]) -> Any:
    return np.dtype(np.uint8 if window_size(axes) <= _LARGEST_BYTE else np.int32)


@lru_cache(maxsize=512)
def _table(backend: Backend, device: Device, axis: Axis, backward: bool) -> Array:
    """The table of an axis on its device, as the kernel reads it; kept, so that it is moved there once."""
    if not backward:
        return backend.from_numpy(np.ascontiguousarray(taps(axis).index), device)
    index, number, _ = transposed(axis)
    return backend.from_numpy(np.ascontiguousarray(np.stack([index, number], axis=2)), device)


# -- the choice of a kernel --------------------------------------------------------------------------------------------
_BLOCK = 128  # threads; kBlock in max_pool.cu


def _select(kernel: str, image: Array, other: Array, positions: Array, last: bool, axes: tuple[Axis, ...]) -> Plan:
    """The launch for arrays in one format; ``image`` is the array of the size of ``x``, ``other`` that of ``y``."""
    return _plan(kernel, image.dtype, positions.dtype, image.shape, last, axes, aligned(image, other, positions))


@lru_cache(maxsize=4096)
def _plan(
    kernel: str,
    dtype: Any,
    position_dtype: Any,
    shape: tuple[int, ...],
    last: bool,
    axes: tuple[Axis, ...],
    all_aligned: bool,
) -> Plan:
    images, channels = (shape[0], shape[1]) if last else (shape[0] * shape[1], 1)
    vector, why = elements_at_a_time(dtype, all_aligned, (channels, "channels"))
    because = f"{'channels-last' if last else 'contiguous'} {shape}"
    if why:
        because += f", single elements because {why if last else 'neighbours in a plane are in different windows'}"
    backward = kernel.endswith("backward")
    depth = [transposed(axis)[0].shape[1] if backward else taps(axis).most for axis in axes]
    if backward:
        depth += [taps(axis).most for axis in axes[1:]]
    results = images * channels * math.prod(axis.length if backward else axis.out for axis in axes)
    sizes = [*(axis.length for axis in axes), *(axis.out for axis in axes), *depth]
    scalars: tuple[Any, ...] = (np.int64(images), np.int64(channels), *(np.int32(size) for size in sizes))
    position = "uchar" if position_dtype.itemsize == 1 else "int"
    section = "BACKWARD" if backward else "FORWARD"
    defines = (section, f"POSITION={position}", f"DTYPE={c_type(dtype)}", f"VECTOR={vector}")
    return Plan(kernel, defines, blocks(kernel, results // vector, _BLOCK), _BLOCK, scalars, because)


@explained("max_pool")
def _explain_forward(x: Array, axes: Sequence[Axis], *, positions: bool = True) -> Plan:
    check_images("max_pool", x, axes)
    backend, last = backend_of(x), is_channels_last(x)
    shape, device = out_shape(x.shape, axes), backend.device_of(x)
    if (why := _why_no_kernel(backend, x, math.prod(shape))) is not None:
        return definition_plan(why)
    y, where = (empty_images(backend, shape, dtype, device, last) for dtype in (x.dtype, _position_dtype(axes)))
    given = in_format(x, last)
    plan = _select("max_pool_forward", given, y, where, last, three(axes))
    return plan if given is x else plan._replace(because=f"x has gaps and is copied first; {plan.because}")


@explained("max_pool_backward")
def _explain_backward(dy: Array, positions: Array, shape: tuple[int, ...], axes: Sequence[Axis]) -> Plan:
    check_images("max_pool_backward", dy, axes, shape)
    backend, last = common_backend(dy, positions), is_channels_last(positions)
    if (why := _why_no_kernel(backend, dy, math.prod(shape) and dy.size)) is not None:
        return definition_plan(why)
    dx = empty_images(backend, shape, dy.dtype, backend.device_of(dy), last)
    given = in_format(dy, last)
    plan = _select("max_pool_backward", dx, given, in_format(positions, last), last, three(axes))
    return plan if given is dy else plan._replace(because=f"dy has another format and is copied first; {plan.because}")


def _why_no_kernel(backend: Backend, x: Array, results: int) -> str | None:
    if not backend.runs_cuda:
        return no_cuda(backend)
    if not results:
        return "there is nothing to compute, nothing is launched"
    if c_type(x.dtype) is None:
        return no_kernel_for(x.dtype)
    return None
