"""Layer normalisation and its derivative on plain arrays; the CUDA kernels are in ``layer_norm.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend
from . import _norm_cuda, layer_norm_numpy
from ._launch import Plan, Plans, contiguous, definition_plan, explained, is_float, no_cuda
from .scalars import not_negative


def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """``y = (x - mean) * rstd * weight + bias`` over the last axis, ``rstd = 1 / sqrt(mean((x - mean)^2) + eps)``.

    The variance is taken of the centred values, so a large mean costs no accuracy. A NaN stays in its row.

    Args:
        x: shape ``(..., D)``; float16, bfloat16, float32 or float64.
        weight, bias: shape ``(D,)``, of the dtype of ``x``; or None.
        eps: added to the variance.
    Returns:
        ``y`` like ``x``; ``mean`` and ``rstd`` of shape ``(...)``, float32 for 16-bit floats, else of the dtype of
        ``x``: what :func:`layer_norm_backward` needs.
    Raises:
        TypeError: ``x`` is not floating, or the dtypes differ. ValueError: shapes do not fit, or ``eps`` is negative.
    """
    check_rows("layer_norm", x, weight=weight, bias=bias)
    eps = not_negative("layer_norm", "eps", eps)
    backend = backend_of(x)
    if backend.runs_cuda and x.size:
        x, weight, bias = (contiguous(backend, a) for a in (x, weight, bias))
        y = backend.empty(x.shape, x.dtype, backend.device_of(x))
        call = _norm_cuda.rows_of(backend, x, y, weight, bias, centred=True)
        if _norm_cuda.why_not(call) is None:
            stats = _norm_cuda.launch_forward(backend, call, x, y, None, None, weight, bias, eps)
            return y, *(a.reshape(x.shape[:-1]) for a in stats)
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        return layer_norm_definition(x, weight, bias, eps)
    rows = x.reshape(-1, x.shape[-1])
    y = backend.empty(rows.shape, x.dtype, backend.device_of(x))
    mean, rstd = np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    layer_norm_numpy.layer_norm_rows(rows, weight, bias, eps, y, mean, rstd)
    return y.reshape(x.shape), mean.reshape(x.shape[:-1]), rstd.reshape(x.shape[:-1])


def layer_norm_backward(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None = None
) -> tuple[Array, Array, Array]:
    """The gradients of ``x``, ``weight`` and ``bias``.

    With ``n = (x - mean) * rstd`` and ``g = dy * weight``: ``dx = rstd * (g - mean(g) - n * mean(g * n))`` over the
    last axis; ``dweight = sum(dy * n)`` and ``dbias = sum(dy)`` over all others.

    Args:
        dy: gradient of ``y``, of the shape and dtype of ``x``.
        x, weight: what :func:`layer_norm` was given. mean, rstd: what it returned.
    Returns:
        ``dx``, ``dweight``, ``dbias``; the last two of shape ``(D,)`` whether or not there was a weight or bias.
    """
    check_rows("layer_norm_backward", x, weight=weight)
    check_gradient("layer_norm_backward", dy, x)
    backend = common_backend(dy, x)
    if backend.runs_cuda and x.size:
        dy, x, weight, mean, rstd = (contiguous(backend, a) for a in (dy, x, weight, mean, rstd))
        dx = backend.empty(x.shape, x.dtype, backend.device_of(x))
        call = _norm_cuda.rows_of(backend, x, dy, dx, weight, centred=True)
        if _norm_cuda.why_not(call) is None:
            return dx, *_norm_cuda.launch_backward(backend, call, dy, x, mean, rstd, weight, dx)
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        return layer_norm_backward_definition(dy, x, mean, rstd, weight)
    cols = x.shape[-1]
    dx = backend.empty((x.size // cols, cols), x.dtype, backend.device_of(x))
    dweight, dbias = layer_norm_numpy.layer_norm_rows_backward(
        dy.reshape(-1, cols), x.reshape(-1, cols), mean.reshape(-1), rstd.reshape(-1), weight, dx
    )
    return dx.reshape(x.shape), dweight, dbias


def layer_norm_definition(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """The definition in array operations, for every dtype and backend; computed in float32 or better."""
    xp = backend_of(x).xp
    wide = widened(x)
    scale = 1.0 / x.shape[-1]
    mean = wide.sum(axis=-1, keepdims=True) * scale
    y = wide - mean
    rstd = 1.0 / xp.sqrt((y * y).sum(axis=-1, keepdims=True) * scale + eps)
    y *= rstd
    if weight is not None:
        y *= widened(weight)
    if bias is not None:
        y += widened(bias)
    return y.astype(x.dtype, copy=False), mean[..., 0], rstd[..., 0]


def layer_norm_backward_definition(
    dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None
) -> tuple[Array, Array, Array]:
    """The derivative in array operations, for every dtype and backend; computed in float32 or better."""
    dtype, cols = x.dtype, x.shape[-1]
    dy, x = widened(dy), widened(x)
    scale = 1.0 / cols
    n = (x - mean[..., None]) * rstd[..., None]
    g = dy if weight is None else dy * widened(weight)
    dx = n * ((g * n).sum(axis=-1, keepdims=True) * -scale)
    dx += g
    dx -= g.sum(axis=-1, keepdims=True) * scale
    dx *= rstd[..., None]
    backend = backend_of(x)
    dweight, dbias = (backend.sum_rows(a.reshape(-1, cols)) for a in (dy * n, dy))
    return dx.astype(dtype, copy=False), dweight.astype(dtype, copy=False), dbias.astype(dtype, copy=False)


def widened(x: Array) -> Array:
    """16-bit floats as float32, others as they are."""
    return x.astype("float32") if x.dtype.itemsize == 2 else x


# -- which kernels run -----------------------------------------------------------------------------------------------


@explained("layer_norm")
def _explain_forward(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Plan | Plans:
    check_rows("layer_norm", x, weight=weight, bias=bias)
    not_negative("layer_norm", "eps", eps)
    return explain_rows(backend_of(x), x, weight, bias, centred=True)


@explained("layer_norm_backward")
def _explain_backward(dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None = None) -> Plan | Plans:
    check_rows("layer_norm_backward", x, weight=weight)
    check_gradient("layer_norm_backward", dy, x)
    return explain_rows(common_backend(dy, x), x, dy, weight, centred=True, backward=True)


def explain_rows(
    backend: Backend, x: Array, *others: Array | None, centred: bool, fused: bool = False, backward: bool = False
) -> Plan | Plans:
    """The plans for rows: every array that is given, beside results of their own, which are always aligned."""
    if not x.size:
        return definition_plan("the array is empty, nothing is launched")
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    x, *others = (contiguous(backend, a) for a in (x, *others))  # type: ignore[assignment]
    call = _norm_cuda.rows_of(backend, x, *others, centred=centred, fused=fused)
    if (reason := _norm_cuda.why_not(call)) is not None:
        return definition_plan(reason)
    return _norm_cuda.select_backward(call) if backward else _norm_cuda.select_forward(call)


# -- checks ----------------------------------------------------------------------------------------------------------


def check_gradient(function: str, dy: Array, x: Array, name: str = "dy") -> None:
    """Raise unless ``dy`` has the shape and dtype of ``x``."""
    if dy.shape != x.shape or dy.dtype != x.dtype:
        raise ValueError(
            f"{function}: {name} must be {x.dtype} of shape {x.shape} as x is, got {dy.dtype} of {dy.shape}"
        )


def check_rows(function: str, x: Array, **parameters: Any) -> None:
    """Raise unless ``x`` is floating with at least one axis and the parameters are ``(D,)`` of its dtype."""
    if not is_float(x.dtype):
        raise TypeError(f"{function}: x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{function}: x must have a last axis of at least one value, got shape {x.shape}")
    for name, value in parameters.items():
        if value is None:
            continue
        if value.shape != x.shape[-1:]:
            raise ValueError(f"{function}: {name} must have shape {x.shape[-1:]} for x {x.shape}, got {value.shape}")
        if value.dtype != x.dtype:
            raise TypeError(f"{function}: {name} must have the dtype of x, {x.dtype}, got {value.dtype}")
