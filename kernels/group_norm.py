"""Group normalisation and its derivative on plain arrays; the CUDA kernels are in ``group_norm.cu``.

Images are taken contiguous and channels-last, and keep their format. Instance norm is group norm with a group to each
channel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, empty_images, in_format, is_channels_last, pixels
from . import _group_norm_cuda, group_norm_numpy
from ._launch import Plan, Plans, contiguous, definition_plan, explained, is_float, no_cuda
from .layer_norm import check_gradient, widened
from .scalars import integer, not_negative


def group_norm(
    x: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """``y = (x - mean) * rstd * weight + bias``; mean and variance over each group of neighbouring channels.

    Args:
        x: shape ``(N, C, ...)``; float16, bfloat16, float32 or float64.
        num_groups: how many groups the channels form; divides C.
        weight, bias: shape ``(C,)``, of the dtype of ``x``; or None.
        eps: added to the variance.
    Returns:
        ``y`` like ``x``, also in its memory format; ``mean`` and ``rstd`` of shape ``(N, num_groups)``, float32 for
        16-bit floats, else of the dtype of ``x``: what :func:`group_norm_backward` needs.
    Raises:
        TypeError: ``x`` is not floating, or the dtypes differ. ValueError: the shapes do not fit.
    Source: Wu and He 2018, arXiv 1803.08494.
    """
    _check("group_norm", x, num_groups, weight=weight, bias=bias)
    eps = not_negative("group_norm", "eps", eps)
    backend = backend_of(x)
    last = is_channels_last(x)
    if x.size and (backend.runs_cuda or (backend.xp is np and x.dtype.itemsize > 2)):
        x = in_format(x, last)
        y = empty_images(backend, x.shape, x.dtype, backend.device_of(x), last)
    if backend.runs_cuda and x.size:
        weight, bias = (contiguous(backend, a) for a in (weight, bias))
        call = _group_norm_cuda.images_of(backend, x, num_groups, last, y)
        if _group_norm_cuda.why_not(call) is None:
            stats = _group_norm_cuda.launch_forward(backend, call, x, weight, bias, eps, y)
            return y, *(a.reshape(x.shape[0], num_groups) for a in stats)
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        y, mean, rstd = group_norm_definition(x, num_groups, weight, bias, eps)
        return in_format(y, last), mean, rstd
    if last:
        mean, rstd = (np.empty((x.shape[0], num_groups), x.dtype) for _ in range(2))
        group_norm_numpy.group_norm_pixels(_matrices(x), num_groups, weight, bias, eps, _matrices(y), mean, rstd)
        return y, mean, rstd
    groups = x.reshape(_groups(x.shape, num_groups))
    mean, rstd = (np.empty((x.shape[0], num_groups), x.dtype) for _ in range(2))
    group_norm_numpy.group_norm_groups(groups, weight, bias, eps, y.reshape(groups.shape), mean, rstd)
    return y, mean, rstd


def group_norm_backward(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradients of ``x``, ``weight`` and ``bias``.

    With ``n = (x - mean) * rstd`` and ``g = dy * weight``: ``dx = rstd * (g - mean(g) - n * mean(g * n))``, means over
    each group; ``dweight = sum(dy * n)`` and ``dbias = sum(dy)`` over all axes but the channels'.

    Args:
        dy: gradient of ``y``, of the shape and dtype of ``x``.
        x, weight: what :func:`group_norm` was given. mean, rstd: what it returned.
    Returns:
        ``dx``, ``dweight``, ``dbias``; the last two of shape ``(C,)`` whether or not there was a weight or bias.
    """
    num_groups = mean.shape[1]
    _check("group_norm_backward", x, num_groups, weight=weight)
    check_gradient("group_norm_backward", dy, x)
    backend = common_backend(dy, x)
    last = is_channels_last(x)
    if x.size and (backend.runs_cuda or (backend.xp is np and x.dtype.itemsize > 2)):
        x, dy = in_format(x, last), in_format(dy, last)
        dx = empty_images(backend, x.shape, x.dtype, backend.device_of(x), last)
    if backend.runs_cuda and x.size:
        mean, rstd, weight = (contiguous(backend, a) for a in (mean, rstd, weight))
        call = _group_norm_cuda.images_of(backend, x, num_groups, last, dy, dx)
        if _group_norm_cuda.why_not(call) is None:
            return dx, *_group_norm_cuda.launch_backward(backend, call, dy, x, mean, rstd, weight, dx)
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        dx, dweight, dbias = group_norm_backward_definition(dy, x, mean, rstd, weight)
        return in_format(dx, last), dweight, dbias
    if last:
        matrices = (_matrices(dy), _matrices(x))
        return dx, *group_norm_numpy.group_norm_pixels_backward(*matrices, mean, rstd, weight, _matrices(dx))
    shape = _groups(x.shape, num_groups)
    dweight, dbias = group_norm_numpy.group_norm_groups_backward(
        dy.reshape(shape), x.reshape(shape), mean, rstd, weight, dx.reshape(shape)
    )
    return dx, dweight, dbias


def group_norm_definition(
    x: Array, num_groups: int, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """The definition in array operations, for every dtype and backend; computed in float32 or better."""
    xp = backend_of(x).xp
    shape = _groups(x.shape, num_groups)
    wide = widened(x).reshape(shape)
    scale = 1.0 / (shape[2] * shape[3])
    mean = wide.sum(axis=(2, 3), keepdims=True) * scale
    y = wide - mean
    rstd = 1.0 / xp.sqrt((y * y).sum(axis=(2, 3), keepdims=True) * scale + eps)
    y *= rstd
    if weight is not None:
        y *= widened(weight).reshape(1, *shape[1:3], 1)
    if bias is not None:
        y += widened(bias).reshape(1, *shape[1:3], 1)
    return y.reshape(x.shape).astype(x.dtype, copy=False), mean[:, :, 0, 0], rstd[:, :, 0, 0]


def group_norm_backward_definition(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """The derivative in array operations, for every dtype and backend; computed in float32 or better."""
    before, dtype = x.shape, x.dtype
    shape = _groups(before, mean.shape[1])
    dy, x = widened(dy).reshape(shape), widened(x).reshape(shape)
    mean, rstd = mean[:, :, None, None], rstd[:, :, None, None]
    n = (x - mean) * rstd
    g = dy if weight is None else dy * widened(weight).reshape(1, *shape[1:3], 1)
    scale = 1.0 / (shape[2] * shape[3])
    dx = n * ((g * n).sum(axis=(2, 3), keepdims=True) * -scale)
    dx += g
    dx -= g.sum(axis=(2, 3), keepdims=True) * scale
    dx *= rstd
    dweight, dbias = (a.sum(axis=(0, 3)).reshape(before[1]).astype(dtype, copy=False) for a in (dy * n, dy))
    return dx.reshape(before).astype(dtype, copy=False), dweight, dbias


def _matrices(x: Array) -> Array:
    """Channels-last images as (N, pixels, channels), the same memory."""
    return pixels(x).reshape(x.shape[0], -1, x.shape[1])


# -- which kernels run -----------------------------------------------------------------------------------------------


@explained("group_norm")
def _explain_forward(
    x: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Plan | Plans:
    _check("group_norm", x, num_groups, weight=weight, bias=bias)
    return _explain(backend_of(x), num_groups, x)


@explained("group_norm_backward")
def _explain_backward(dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None = None) -> Plan | Plans:
    _check("group_norm_backward", x, mean.shape[1], weight=weight)
    check_gradient("group_norm_backward", dy, x)
    return _explain(common_backend(dy, x), mean.shape[1], x, dy)


def _explain(backend: Backend, num_groups: int, x: Array, *gradient: Array) -> Plan | Plans:
    if not x.size:
        return definition_plan("the array is empty, nothing is launched")
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    last = is_channels_last(x)
    given = [in_format(a, last) for a in (x, *gradient)]
    call = _group_norm_cuda.images_of(backend, given[0], num_groups, last, *given[1:])
    if (reason := _group_norm_cuda.why_not(call)) is not None:
        return definition_plan(reason)
    return _group_norm_cuda.select_backward(call) if gradient else _group_norm_cuda.select_forward(call)


# -- shapes ----------------------------------------------------------------------------------------------------------


def _groups(shape: tuple[int, ...], num_groups: int) -> tuple[int, int, int, int]:
    """``(N, C, ...)`` as (N, groups, channels in a group, values in a channel)."""
    return shape[0], num_groups, shape[1] // num_groups, math.prod(shape[2:])


def _check(function: str, x: Array, num_groups: int, **parameters: Any) -> None:
    num_groups = integer(function, "num_groups", num_groups)
    if not is_float(x.dtype):
        raise TypeError(f"{function}: x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.ndim < 2 or math.prod(x.shape[1:]) == 0:
        raise ValueError(f"{function}: x must have shape (N, C, ...) with at least one value a sample, got {x.shape}")
    channels = x.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(
            f"{function}: num_groups must divide the channels, got num_groups={num_groups}, {channels} channels"
        )
    for name, value in parameters.items():
        if value is None:
            continue
        if value.shape != (channels,):
            raise ValueError(f"{function}: {name} must have shape ({channels},) for x {x.shape}, got {value.shape}")
        if value.dtype != x.dtype:
            raise TypeError(f"{function}: {name} must have the dtype of x, {x.dtype}, got {value.dtype}")
