"""Group normalisation and its derivative on plain arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, backend_of, common_backend
from . import group_norm_numpy
from .layer_norm import widened


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
        ``y`` like ``x``; ``mean`` and ``rstd`` of shape ``(N, num_groups)``, float32 for 16-bit floats, else of the
        dtype of ``x``: what :func:`group_norm_backward` needs.
    Raises:
        TypeError: ``x`` is not floating, or the dtypes differ. ValueError: the shapes do not fit.
    Source: Wu and He 2018, arXiv 1803.08494.
    """
    _check("group_norm", x, num_groups, weight=weight, bias=bias)
    backend = backend_of(x)
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        return group_norm_definition(x, num_groups, weight, bias, eps)
    groups = x.reshape(_groups(x.shape, num_groups))
    y = backend.empty(groups.shape, x.dtype, backend.device_of(x))
    mean, rstd = (np.empty((x.shape[0], num_groups), x.dtype) for _ in range(2))
    group_norm_numpy.group_norm_groups(groups, weight, bias, eps, y, mean, rstd)
    return y.reshape(x.shape), mean, rstd


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
    if dy.shape != x.shape or dy.dtype != x.dtype:
        raise ValueError(
            f"group_norm_backward: dy must be {x.dtype} of shape {x.shape} as x is, got {dy.dtype} of {dy.shape}"
        )
    backend = common_backend(dy, x)
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        return group_norm_backward_definition(dy, x, mean, rstd, weight)
    shape = _groups(x.shape, num_groups)
    dx = backend.empty(shape, x.dtype, backend.device_of(x))
    dweight, dbias = group_norm_numpy.group_norm_groups_backward(
        dy.reshape(shape), x.reshape(shape), mean, rstd, weight, dx
    )
    return dx.reshape(x.shape), dweight, dbias


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


def _groups(shape: tuple[int, ...], num_groups: int) -> tuple[int, int, int, int]:
    """``(N, C, ...)`` as (N, groups, channels in a group, values in a channel)."""
    return shape[0], num_groups, shape[1] // num_groups, math.prod(shape[2:])


def _check(function: str, x: Array, num_groups: int, **parameters: Any) -> None:
    if x.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
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
