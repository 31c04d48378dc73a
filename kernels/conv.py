"""Convolution and its derivatives on plain arrays, one code for 1-D, 2-D and 3-D."""

from __future__ import annotations

import math
import operator
from typing import Any, TypeGuard

import numpy as np

from ..backend import Array, Backend, common_backend, empty_images, is_channels_last
from ..backend.numpy_backend import NumpyBackend
from . import conv_cuda, conv_numpy
from ._launch import Plan, definition_plan, explained, no_cuda
from .im2col import add_columns, check_image, checked_counts, columns
from .windows import Windows, in_blocks, windows

WORKSPACE = 256 << 20  # bytes


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
    workspace: int = WORKSPACE,
) -> Array:
    """``y[n, f, i] = bias[f] + sum over c, k of weight[f, c, k] * padded x[n, c, stride i + dilation k]``.

    A correlation, as in every framework: the kernel is not flipped. With groups, output channel f sees the input
    channels of its own group only. 16-bit floats are computed in float32.

    Args:
        x: shape ``(N, C, *lengths)`` with one, two or three lengths. The result keeps its memory format (channels
            first or last); only Winograd's algorithm on the CPU always gives channels-last, which is quicker.
        weight: shape ``(F, C / groups, *kernel)``, of the dtype of ``x``.
        bias: shape ``(F,)``, or None.
        stride, dilation: an integer, or one for each axis.
        padding: the same, or a pair (before, after) for each axis, where a negative number cuts values off; or
            ``"valid"``, or ``"same"`` (stride 1; an odd zero comes last).
        groups: divides C and F.
        activation: ``"relu"`` gives ``max(y, 0)``, on a CUDA device without another pass; None leaves y as it is.
        workspace: bytes of intermediate results held at a time; the result does not depend on it.
    Returns:
        shape ``(N, F, *places)`` with ``floor((length + padding - dilation (kernel - 1) - 1) / stride) + 1`` places.
    Raises:
        TypeError: a dtype does not fit. ValueError: a shape or number does not fit; says which.
    """
    backend = common_backend(x, weight) if bias is None else common_backend(x, weight, bias)
    geometry, groups = _check("conv", x, weight, stride, padding, dilation, groups)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"conv: bias must have shape {weight.shape[:1]}, one value a filter, got {bias.shape}")
    if bias is not None and bias.dtype != x.dtype:
        raise TypeError(f"conv: bias must have the dtype of x, {x.dtype}, got {bias.dtype}; cast with .astype")
    if activation not in (None, "relu"):
        raise ValueError(f"conv: activation must be 'relu' or None, got {activation!r}")
    counts = checked_counts("conv", geometry, x.shape[2:])
    shape = (x.shape[0], weight.shape[0], *counts)
    last = is_channels_last(x) or (
        _has_cpu_path(backend, x) and conv_numpy.rather_pixels(x.dtype, weight, geometry, groups, counts, workspace)
    )
    y = empty_images(backend, shape, x.dtype, backend.device_of(x), last)
    if not y.size:
        return y
    relu = activation == "relu"
    if _has_cpu_path(backend, x):
        conv_numpy.forward(backend, x, weight, bias, geometry, groups, workspace, y)
    elif conv_cuda.forward(backend, x, weight, bias, geometry, groups, relu, workspace, y):
        return y
    else:
        conv_definition(backend, x, weight, bias, geometry, groups, workspace, y)
    return backend.xp.maximum(y, 0, out=y) if relu else y


@explained("conv1d")
@explained("conv2d")
@explained("conv3d")
@explained("conv")
def _explain(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    workspace: int = WORKSPACE,
) -> Plan:
    backend = common_backend(x, weight)
    geometry, groups = _check("conv", x, weight, stride, padding, dilation, groups)
    counts = checked_counts("conv", geometry, x.shape[2:])
    if not x.size or not weight.size:
        return definition_plan("an array is empty, nothing is launched")
    if _has_cpu_path(backend, x):
        by = conv_numpy.algorithm(x, weight, geometry, groups, workspace)
        return definition_plan(f"{no_cuda(backend)}; NumPy does it by {by}")
    return conv_cuda.explain_forward(backend, x, weight, bias, geometry, groups, workspace, counts)


def conv_backward_data(
    dy: Array,
    weight: Array,
    lengths: tuple[int, ...],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    workspace: int = WORKSPACE,
) -> Array:
    """The gradient of ``x`` of ``y = conv(x, weight)``; also what a transposed convolution computes.

    ``dx[n, c, j] = sum over f, k, i with stride i + dilation k - padding = j of weight[f, c, k] * dy[n, f, i]``.

    Args:
        dy: gradient of ``y``, shape ``(N, F, *places)``; its memory format is that of the result.
        weight: shape ``(F, C / groups, *kernel)``.
        lengths: the spatial lengths of ``x``.
        stride, padding, dilation, groups, workspace: as :func:`conv` takes them.
    Returns:
        shape ``(N, C, *lengths)``.
    Raises:
        TypeError: a dtype does not fit. ValueError: a shape or number does not fit; says which.
    """
    backend = common_backend(dy, weight)
    geometry, groups, lengths = _check_backward(
        "conv_backward_data", dy, weight, lengths, stride, padding, dilation, groups
    )
    dx = _empty_like(backend, dy, (dy.shape[0], weight.shape[1] * groups, *lengths))
    if not dx.size:
        return dx
    if not dy.size:
        dx[...] = 0
    elif _has_cpu_path(backend, dy):
        conv_numpy.backward_data(backend, dy, weight, geometry, groups, workspace, dx)
    elif not conv_cuda.backward_data(backend, dy, weight, geometry, groups, workspace, dx):
        conv_backward_data_definition(backend, dy, weight, geometry, groups, workspace, dx)
    return dx


def conv_backward_weight(
    dy: Array,
    x: Array,
    kernel_size: tuple[int, ...],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    workspace: int = WORKSPACE,
    out: Array | None = None,
) -> Array:
    """``dweight[f, c, k] = sum over n, i of dy[n, f, i] * padded x[n, c, stride i + dilation k]``.

    The sum is cut in parts by the number of CPU threads, so its last digits depend on that number; with one number
    it repeats bit for bit.

    Args:
        dy: gradient of ``y``, shape ``(N, F, *places)``.
        x: what :func:`conv` was given.
        kernel_size: the spatial lengths of the weight.
        stride, padding, dilation, groups, workspace: as :func:`conv` takes them.
        out: where to write; a new array by default.
    Returns:
        shape ``(F, C / groups, *kernel_size)``.
    Raises:
        TypeError: a dtype does not fit. ValueError: a shape or number does not fit; says which.
    """
    backend = common_backend(dy, x)
    kernel_size = tuple(kernel_size)
    geometry = windows("conv_backward_weight", kernel_size, stride, padding, dilation)
    check_image("conv_backward_weight", "x", x, len(kernel_size))
    check_image("conv_backward_weight", "dy", dy, len(kernel_size))
    groups = _checked_groups("conv_backward_weight", groups, x.shape[1], dy.shape[1])
    _check_dy("conv_backward_weight", dy, (x.shape[0], dy.shape[1], *geometry.counts(x.shape[2:])), x.dtype)
    shape = (dy.shape[1], x.shape[1] // groups, *kernel_size)
    dweight = out
    if dweight is None or not dweight.flags.c_contiguous:
        dweight = backend.empty(shape, x.dtype, backend.device_of(x))
    if not dy.size or not x.size:
        dweight[...] = 0
    elif _has_cpu_path(backend, x):
        conv_numpy.backward_weight(backend, dy, x, geometry, groups, workspace, dweight)
    elif not conv_cuda.backward_weight(backend, dy, x, geometry, groups, workspace, dweight):
        conv_backward_weight_definition(backend, dy, x, geometry, groups, workspace, dweight)
    if out is None or out is dweight:
        return dweight
    out[...] = dweight
    return out


def conv_backward_bias(dy: Array, out: Array | None = None) -> Array:
    """``dbias[f] = sum over n, i of dy[n, f, i]``, shape ``(F,)``; 16-bit floats are added in float32."""
    backend = common_backend(dy)
    if dy.size and _has_cpu_path(backend, dy):
        return conv_numpy.backward_bias(backend, dy, out)
    axes = (0, *range(2, dy.ndim))
    total = dy.sum(axis=axes, dtype="float32").astype(dy.dtype) if dy.dtype.itemsize == 2 else dy.sum(axis=axes)
    if out is None:
        return total
    out[...] = total
    return out


# -- the definition in array operations -------------------------------------------------------------------------------


def conv_definition(
    backend: Backend,
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Windows,
    groups: int,
    workspace: int,
    y: Array,
) -> None:
    """Columns times the weight, a block of samples or rows at a time, into ``y``; for every dtype and backend."""
    wide = _wide(x.dtype)
    w = weight.reshape(groups, weight.shape[0] // groups, -1).astype(wide, copy=False)  # (G, F/G, C/G k)
    b = None if bias is None else bias.reshape(1, -1, 1).astype(wide, copy=False)
    counts = y.shape[2:]
    in_row = _bytes_in_row(x.shape[1], geometry, counts, np.dtype(wide).itemsize)
    for first, end, row, stop in in_blocks(x.shape[0], counts[0], in_row, workspace):
        cols = _block_columns(backend, x, geometry, counts, (first, end, row, stop), groups)
        part = backend.matmul(w, cols.astype(wide, copy=False))  # (n, G, F/G, places)
        part = part.reshape(end - first, weight.shape[0], -1)
        if b is not None:
            part += b
        y[first:end, :, row:stop] = part.reshape(end - first, -1, stop - row, *counts[1:]).astype(x.dtype, copy=False)


def conv_backward_data_definition(
    backend: Backend, dy: Array, weight: Array, geometry: Windows, groups: int, workspace: int, dx: Array
) -> None:
    """The transposed weight times ``dy``, added where the columns came from, some samples at a time, into ``dx``."""
    wide = _wide(dy.dtype)
    samples, channels, counts = dx.shape[0], dx.shape[1], dy.shape[2:]
    w = weight.reshape(groups, weight.shape[0] // groups, -1).astype(wide, copy=False)
    step = max(1, workspace // max(1, counts[0] * _bytes_in_row(channels, geometry, counts, np.dtype(wide).itemsize)))
    for first in range(0, samples, step):
        part = dy[first : first + step]
        part = part.reshape(len(part), groups, w.shape[1], math.prod(counts)).astype(wide, copy=False)
        cols = backend.matmul(w.transpose(0, 2, 1), part)  # (n, G, C/G k, places)
        cols = cols.reshape(len(part), channels, geometry.size, *counts)
        add_columns(backend, cols, geometry, dx[first : first + step])


def conv_backward_weight_definition(
    backend: Backend, dy: Array, x: Array, geometry: Windows, groups: int, workspace: int, dweight: Array
) -> None:
    """``dy`` times the columns, a block of samples or rows at a time, into ``dweight``."""
    wide = _wide(x.dtype)
    counts, filters = dy.shape[2:], dy.shape[1]
    total: Array | None = None
    in_row = _bytes_in_row(x.shape[1], geometry, counts, np.dtype(wide).itemsize)
    for first, end, row, stop in in_blocks(x.shape[0], counts[0], in_row, workspace):
        cols = _block_columns(backend, x, geometry, counts, (first, end, row, stop), groups)
        g = dy[first:end, :, row:stop].reshape(end - first, groups, filters // groups, -1).astype(wide, copy=False)
        part = backend.matmul(g, cols.astype(wide, copy=False).transpose(0, 1, 3, 2)).sum(axis=0)  # (G, F/G, C/G k)
        total = part if total is None else total + part
    dweight[...] = total.reshape(dweight.shape).astype(x.dtype, copy=False)  # type: ignore[union-attr]


def _block_columns(
    backend: Backend,
    x: Array,
    geometry: Windows,
    counts: tuple[int, ...],
    block: tuple[int, int, int, int],
    groups: int,
) -> Array:
    """The columns of a block: ``(n, groups, channels of a group * kernel, places)``."""
    first, end, row, stop = block
    inside, here = geometry.part(row, stop, x.shape[2])
    cols = columns(backend, x[first:end, :, inside], here, (stop - row, *counts[1:]))
    places = (stop - row) * math.prod(counts[1:])
    return cols.reshape(end - first, groups, x.shape[1] // groups * geometry.size, places)


def _bytes_in_row(channels: int, geometry: Windows, counts: tuple[int, ...], itemsize: int) -> int:
    return channels * geometry.size * math.prod(counts[1:]) * itemsize


def _has_cpu_path(backend: Backend, x: Array) -> TypeGuard[NumpyBackend]:
    return isinstance(backend, NumpyBackend) and x.dtype.itemsize >= 4


def _empty_like(backend: Backend, x: Array, shape: tuple[int, ...]) -> Array:
    return empty_images(backend, shape, x.dtype, backend.device_of(x), is_channels_last(x))


def _wide(dtype: Any) -> Any:
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


# -- checks ------------------------------------------------------------------------------------------------------------


def _check(
    function: str, x: Array, weight: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Windows, int]:
    if weight.ndim < 3:
        raise ValueError(f"{function}: weight must have shape (F, C / groups, *kernel), got {weight.shape}")
    axes = weight.ndim - 2
    check_image(function, "x", x, axes)
    if weight.dtype != x.dtype:
        raise TypeError(
            f"{function}: x and weight must have one dtype, got {x.dtype} and {weight.dtype}; cast with .astype"
        )
    groups = _checked_groups(function, groups, x.shape[1], weight.shape[0])
    if weight.shape[1] * groups != x.shape[1]:
        raise ValueError(
            f"{function}: weight must have shape (F, C / groups, *kernel), which for x {x.shape} and groups={groups} "
            f"has {x.shape[1] // groups} as second length, got {weight.shape}"
        )
    return windows(function, weight.shape[2:], stride, padding, dilation), groups


def _check_backward(
    function: str,
    dy: Array,
    weight: Array,
    lengths: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> tuple[Windows, int, tuple[int, ...]]:
    if weight.ndim < 3:
        raise ValueError(f"{function}: weight must have shape (F, C / groups, *kernel), got {weight.shape}")
    check_image(function, "dy", dy, weight.ndim - 2)
    geometry = windows(function, weight.shape[2:], stride, padding, dilation)
    lengths = tuple(map(operator.index, lengths))
    counts = checked_counts(function, geometry, lengths)
    groups = _checked_groups(function, groups, weight.shape[1] * operator.index(groups), weight.shape[0])
    _check_dy(function, dy, (dy.shape[0], weight.shape[0], *counts), weight.dtype)
    return geometry, groups, lengths


def _checked_groups(function: str, groups: int, channels: int, filters: int) -> int:
    try:
        groups = operator.index(groups)
    except TypeError:
        raise TypeError(f"{function}: groups must be an integer, got {groups!r}") from None
    if groups < 1 or channels % groups or filters % groups:
        raise ValueError(
            f"{function}: groups must divide the channels of input and output, got groups={groups}, "
            f"{channels} and {filters} channels"
        )
    return groups


def _check_dy(function: str, dy: Array, shape: tuple[int, ...], dtype: Any) -> None:
    if dy.shape != shape:
        raise ValueError(f"{function}: dy must have the shape of y, {shape}, got {dy.shape}")
    if dy.dtype != dtype:
        raise TypeError(f"{function}: dy must have the dtype of y, {dtype}, got {dy.dtype}")
