"""Columns of an image, one for each place of a kernel, and their adjoint, on plain arrays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..backend import Array, Backend, backend_of, empty_images, is_channels_last
from ._launch import FLOATS, Plan, blocks, c_type, contiguous, is_float, launch
from .conv_geometry import Axis, check_positions, describe, forward_axes, readable
from .windows import Windows, padded, windows

_SOURCE = Path(__file__).with_name("im2col.cu")
THREADS = 256


def im2col(x: Array, kernel_size: tuple[int, ...], *, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Array:
    """The values under a kernel at each of its places: ``cols[n, (c, k), l] = padded x[n, c, stride l + dilation k]``.

    Args:
        x: shape ``(N, C, *lengths)`` with one, two or three lengths.
        kernel_size: one length for each spatial axis.
        stride, dilation: an integer, or one for each axis.
        padding: the same, or a pair for each axis; zeros are added.
    Returns:
        shape ``(N, C * product of kernel_size, places)``: the channel first, then the position in the kernel, and the
        places in C order, as PyTorch's ``unfold`` has them.
    Raises:
        TypeError: ``x`` is not floating point. ValueError: no window fits, or a number is out of range.
    """
    backend = backend_of(x)
    geometry = windows("im2col", tuple(kernel_size), stride, padding, dilation)
    check_image("im2col", "x", x, len(geometry.kernel))
    counts = checked_counts("im2col", geometry, x.shape[2:])
    shape = (x.shape[0], x.shape[1] * geometry.size, math.prod(counts))
    return columns(backend, x, geometry, counts).reshape(shape)


def col2im(
    cols: Array,
    lengths: tuple[int, ...],
    kernel_size: tuple[int, ...],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Array:
    """The adjoint of :func:`im2col`: every column is added where it was taken from, always in the same order.

    Args:
        cols: shape ``(N, C * product of kernel_size, places)``.
        lengths: of the image.
        kernel_size, stride, padding, dilation: as :func:`im2col` takes them.
    Returns:
        shape ``(N, C, *lengths)``.
    Raises:
        TypeError: ``cols`` is not floating point. ValueError: its shape is not what im2col gives for such an image.
    """
    backend = backend_of(cols)
    lengths = tuple(lengths)
    geometry = windows("col2im", tuple(kernel_size), stride, padding, dilation)
    counts = checked_counts("col2im", geometry, lengths)
    if not is_float(cols.dtype):
        raise TypeError(f"col2im: cols must be floating point, one of {', '.join(FLOATS)}, got {cols.dtype}")
    if cols.ndim != 3 or cols.shape[1] % geometry.size or cols.shape[2] != math.prod(counts):
        raise ValueError(
            f"col2im: cols must have shape (N, a multiple of {geometry.size}, {math.prod(counts)}) for an image of "
            f"{lengths}, got {cols.shape}"
        )
    samples, channels = cols.shape[0], cols.shape[1] // geometry.size
    x = backend.empty((samples, channels, *lengths), cols.dtype, backend.device_of(cols))
    add_columns(backend, cols.reshape(samples, channels, geometry.size, *counts), geometry, x)
    return x


def columns(backend: Backend, x: Array, geometry: Windows, counts: tuple[int, ...]) -> Array:
    """``(N, C, kernel, *counts)``: one launch on a CUDA device, else one copy for each position in the kernel."""
    cols = backend.empty((*x.shape[:2], geometry.size, *counts), x.dtype, backend.device_of(x))
    if _has_kernel(backend, cols):
        copy_columns(backend, x, geometry, cols, cols)
        return cols
    wide = padded(backend, x, geometry)
    for i, place in enumerate(geometry.places(counts)):
        cols[:, :, i] = wide[(..., *place)]
    return cols


def add_columns(backend: Backend, cols: Array, geometry: Windows, x: Array) -> None:
    """Write the sum of ``(N, C, kernel, *counts)`` at its places into ``x``; 16-bit floats are added in float32."""
    if _has_kernel(backend, cols) and x.size:
        memory = contiguous(backend, cols)
        fits = x.dtype == cols.dtype and (x.flags.c_contiguous or is_channels_last(x))
        target = x if fits else backend.empty(x.shape, cols.dtype, backend.device_of(x))
        sum_columns(backend, memory, memory, geometry, target)
        if not fits:
            x[...] = target.astype(x.dtype, copy=False)
        return
    counts, lengths = cols.shape[3:], geometry.padded_lengths(x.shape[2:])
    dtype = backend.xp.float32 if x.dtype.itemsize == 2 else x.dtype
    wide = empty_images(backend, (*x.shape[:2], *lengths), dtype, backend.device_of(x), is_channels_last(x))
    wide[...] = 0
    for i, place in enumerate(geometry.places(counts)):
        wide[(..., *place)] += cols[:, :, i].astype(wide.dtype, copy=False)
    image, inner = geometry.overlap(x.shape[2:])
    if any(g < 0 for g in geometry.before + geometry.after):  # what was cut off has no gradient
        x[...] = 0
    x[(..., *image)] = wide[(..., *inner)].astype(x.dtype, copy=False)


def check_image(function: str, name: str, x: Array, axes: int) -> None:
    """Raise unless ``x`` is a floating ``(N, C, *lengths)`` with so many lengths."""
    if not is_float(x.dtype):
        raise TypeError(f"{function}: {name} must be floating point, one of {', '.join(FLOATS)}, got {x.dtype}")
    if x.ndim != axes + 2:
        raise ValueError(f"{function}: {name} must have {axes + 2} axes, (N, C, *lengths), got shape {x.shape}")


def checked_counts(function: str, geometry: Windows, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """How many windows fit along each axis; raises where none does."""
    if len(lengths) != len(geometry.kernel):
        raise ValueError(
            f"{function}: kernel_size must have a length for each of {len(lengths)} axes, got {geometry.kernel}"
        )
    counts = geometry.counts(lengths)
    if any(c < 1 for c in counts):
        raise ValueError(
            f"{function}: a kernel that reaches over {geometry.reach} values does not fit lengths {lengths} with "
            f"padding {tuple(zip(geometry.before, geometry.after, strict=True))}"
        )
    return counts


# -- on a CUDA device --------------------------------------------------------------------------------------------------


def copy_columns(backend: Backend, x: Array, geometry: Windows, cols: Array, memory: Array) -> None:
    """Fill ``cols``, a view of shape ``(N, C, kernel, *counts)`` of the contiguous array ``memory``, from ``x``."""
    x = readable(x, last=False)
    axes = forward_axes(geometry, x.shape[2:], cols.shape[3:])
    plan = _plan("im2col", cols, axes, x.shape[0])
    described = describe(x, cols[:, :, 0], axes, x.shape[1], x.shape[1], 1, width=_between_taps(cols))
    launch(_SOURCE, plan._replace(scalars=(described,)), backend, x, memory)


def sum_columns(backend: Backend, cols: Array, memory: Array, geometry: Windows, x: Array) -> None:
    """Write into ``x``, dense, the sum of its columns, which are as for :func:`copy_columns`."""
    axes = tuple(
        Axis(length, count, stride, before, dilation, taps)
        for length, count, stride, before, dilation, taps in zip(
            x.shape[2:],
            cols.shape[3:],
            geometry.stride,
            geometry.before,
            geometry.dilation,
            geometry.kernel,
            strict=True,
        )
    )
    plan = _plan("col2im", cols, axes, x.shape[0])
    described = describe(cols[:, :, 0], x, axes, x.shape[1], x.shape[1], 1, width=_between_taps(cols))
    launch(_SOURCE, plan._replace(scalars=(described,)), backend, memory, x)


def _plan(kernel: str, cols: Array, axes: tuple[Axis, ...], images: int) -> Plan:
    count = images * math.prod(axis.positions for axis in axes)
    check_positions(count)
    channels = cols.shape[1]
    last = cols.strides[1] == cols.dtype.itemsize and channels > 1
    defines = (f"DTYPE={c_type(cols.dtype)}", *(("LAST",) if last else ()))
    return Plan(kernel, defines, blocks(kernel, count * channels, THREADS), THREADS, (), "")


def _between_taps(cols: Array) -> int:
    return int(cols.strides[2] // cols.dtype.itemsize)


def _has_kernel(backend: Backend, cols: Array) -> bool:
    return backend.runs_cuda and c_type(cols.dtype) is not None and cols.size > 0
