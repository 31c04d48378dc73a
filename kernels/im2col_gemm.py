"""Convolution of float32 on a CUDA device by columns and one matrix product, ``im2col.cu`` and the library's product.

Columns are channels-last, ``(N * places, kernel * C)``, so that the product is the result as it lies in memory. They
are made for some samples at a time, few enough to stay in the device's L2 cache between being written and being read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..backend import Array, Backend, empty_images, in_format, is_channels_last, pixels
from ._launch import Plan, c_type
from .im2col import THREADS, copy_columns, sum_columns
from .windows import Windows

_IN_CACHE = 32 << 20  # bytes of columns: about half of a large device's L2 cache


def plan_forward(x: Array, geometry: Windows, counts: tuple[int, ...], workspace: int) -> Plan:
    """What :func:`forward` launches: the first of its kernels."""
    copied = "" if is_channels_last(x) else "copied to channels-last first and back, "
    together = _together(x, geometry, counts, workspace)
    because = f"{copied}columns of {together} samples at a time, then the library's product"
    grid = -(-together * math.prod(counts) * x.shape[1] // THREADS)
    return Plan("im2col", (f"DTYPE={c_type(x.dtype)}", "LAST"), grid, THREADS, (), because)


def forward(
    backend: Backend,
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Windows,
    relu: bool,
    workspace: int,
    y: Array,
) -> None:
    """``y = conv(x, weight) + bias`` with one group, all checked by the caller, ``y`` not empty."""
    rows = _rows(weight)  # (kernel * C, F)
    x = in_format(x, True)
    out = y if is_channels_last(y) else empty_images(backend, y.shape, y.dtype, backend.device_of(y), True)
    for begin, end, cols, memory in _parts(backend, x, geometry, y.shape[2:], workspace):
        copy_columns(backend, x[begin:end], geometry, cols, memory)
        backend.gemm(memory, rows, pixels(out[begin:end]).reshape(len(memory), -1))
    if bias is not None:
        out += bias.reshape(-1, *[1] * (y.ndim - 2))
    if relu:
        backend.xp.maximum(out, 0, out=y)
    elif out is not y:
        y[...] = out


def backward_data(backend: Backend, dy: Array, weight: Array, geometry: Windows, workspace: int, dx: Array) -> None:
    """The gradient of ``x``: the product with the weight, then every column added where it came from."""
    rows = _rows(weight).T
    dy = in_format(dy, True)
    out = dx if is_channels_last(dx) else empty_images(backend, dx.shape, dx.dtype, backend.device_of(dx), True)
    for begin, end, cols, memory in _parts(backend, out, geometry, dy.shape[2:], workspace):
        backend.gemm(pixels(dy[begin:end]).reshape(len(memory), -1), rows, memory)
        sum_columns(backend, cols, memory, geometry, out[begin:end])
    if out is not dx:
        dx[...] = out


def backward_weight(backend: Backend, dy: Array, x: Array, geometry: Windows, workspace: int, dweight: Array) -> None:
    """The gradient of the weight: products of ``dy`` and the columns, added in the order of the samples."""
    x, dy = in_format(x, True), in_format(dy, True)
    filters, channels = dweight.shape[:2]
    total = backend.empty((filters, dweight.size // filters), x.dtype, backend.device_of(x))
    total.fill(0)
    for begin, end, cols, memory in _parts(backend, x, geometry, dy.shape[2:], workspace):
        copy_columns(backend, x[begin:end], geometry, cols, memory)
        total += backend.gemm(pixels(dy[begin:end]).reshape(len(memory), -1).T, memory)  # (F, kernel * C)
    dweight[...] = total.reshape(filters, *dweight.shape[2:], channels).transpose(
        0, dweight.ndim - 1, *range(1, dweight.ndim - 1)
    )


def _rows(weight: Array) -> Array:
    """``(F, C, *kernel)`` as ``(kernel * C, F)``."""
    return pixels(weight).reshape(weight.shape[0], -1).T


def _parts(
    backend: Backend, x: Array, geometry: Windows, counts: tuple[int, ...], workspace: int
) -> Iterator[tuple[int, int, Array, Array]]:
    """Samples begin … end, and memory for their columns: as ``(N, C, kernel, *counts)`` and as rows of a product."""
    channels, places = x.shape[1], math.prod(counts)
    together = _together(x, geometry, counts, workspace)
    whole = backend.empty((together * places, geometry.size * channels), x.dtype, backend.device_of(x))
    for begin in range(0, x.shape[0], together):
        end = min(begin + together, x.shape[0])
        memory = whole[: (end - begin) * places]
        cols = memory.reshape(end - begin, *counts, geometry.size, channels)
        yield begin, end, cols.transpose(0, cols.ndim - 1, cols.ndim - 2, *range(1, cols.ndim - 2)), memory


def _together(x: Array, geometry: Windows, counts: tuple[int, ...], workspace: int) -> int:
    of_one = math.prod(counts) * geometry.size * x.shape[1] * x.dtype.itemsize
    return int(min(x.shape[0], max(1, min(workspace, _IN_CACHE) // of_one)))
