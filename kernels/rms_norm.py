"""Root-mean-square normalisation and its derivative on plain arrays; the CUDA kernels are in ``layer_norm.cu``."""

from __future__ import annotations

import numpy as np

from ..backend import Array, backend_of, common_backend
from . import _norm_cuda, rms_norm_numpy
from ._launch import Plan, Plans, contiguous, explained
from .layer_norm import check_gradient, check_rows, explain_rows, widened
from .scalars import not_negative


def rms_norm(x: Array, weight: Array | None = None, eps: float | None = None) -> tuple[Array, Array]:
    """``y = x * rstd * weight`` over the last axis, ``rstd = 1 / sqrt(mean(x^2) + eps)``.

    Args:
        x: shape ``(..., D)``; float16, bfloat16, float32 or float64.
        weight: shape ``(D,)``, of the dtype of ``x``; or None.
        eps: added to the mean square; None is the machine epsilon of ``x``, of float32 for 16-bit floats.
    Returns:
        ``y`` like ``x``, and ``rstd`` of shape ``(...)``, float32 for 16-bit floats, else of the dtype of ``x``.
    Raises:
        TypeError: ``x`` is not floating, or the dtypes differ. ValueError: the shapes do not fit.
    Source: Zhang and Sennrich 2019, arXiv 1910.07467.
    """
    check_rows("rms_norm", x, weight=weight)
    eps = machine_epsilon(x) if eps is None else not_negative("rms_norm", "eps", eps)
    backend = backend_of(x)
    if backend.runs_cuda and x.size:
        x, weight = (contiguous(backend, a) for a in (x, weight))
        y = backend.empty(x.shape, x.dtype, backend.device_of(x))
        call = _norm_cuda.rows_of(backend, x, y, weight, centred=False)
        if _norm_cuda.why_not(call) is None:
            _, rstd = _norm_cuda.launch_forward(backend, call, x, y, None, None, weight, None, eps)
            return y, rstd.reshape(x.shape[:-1])
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        return rms_norm_definition(x, weight, eps)
    rows = x.reshape(-1, x.shape[-1])
    y = backend.empty(rows.shape, x.dtype, backend.device_of(x))
    rstd = np.empty(len(rows), x.dtype)
    rms_norm_numpy.rms_norm_rows(rows, weight, eps, y, rstd)
    return y.reshape(x.shape), rstd.reshape(x.shape[:-1])


def rms_norm_backward(dy: Array, x: Array, rstd: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """The gradients of ``x`` and ``weight``.

    With ``n = x * rstd`` and ``g = dy * weight``: ``dx = rstd * (g - n * mean(g * n))`` over the last axis;
    ``dweight = sum(dy * n)`` over all others.

    Args:
        dy: gradient of ``y``, of the shape and dtype of ``x``.
        x, weight: what :func:`rms_norm` was given. rstd: what it returned.
    Returns:
        ``dx`` and ``dweight``; the latter of shape ``(D,)`` whether or not there was a weight.
    """
    check_rows("rms_norm_backward", x, weight=weight)
    check_gradient("rms_norm_backward", dy, x)
    backend = common_backend(dy, x)
    if backend.runs_cuda and x.size:
        dy, x, weight, rstd = (contiguous(backend, a) for a in (dy, x, weight, rstd))
        dx = backend.empty(x.shape, x.dtype, backend.device_of(x))
        call = _norm_cuda.rows_of(backend, x, dy, dx, weight, centred=False)
        if _norm_cuda.why_not(call) is None:
            launched = _norm_cuda.launch_backward(backend, call, dy, x, None, rstd, weight, dx, bias=False)
            return dx, launched[0]
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        return rms_norm_backward_definition(dy, x, rstd, weight)
    cols = x.shape[-1]
    dx = backend.empty((x.size // cols, cols), x.dtype, backend.device_of(x))
    dweight = rms_norm_numpy.rms_norm_rows_backward(
        dy.reshape(-1, cols), x.reshape(-1, cols), rstd.reshape(-1), weight, dx
    )
    return dx.reshape(x.shape), dweight


def rms_norm_definition(x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """The definition in array operations, for every dtype and backend; computed in float32 or better."""
    xp = backend_of(x).xp
    wide = widened(x)
    rstd = 1.0 / xp.sqrt((wide * wide).sum(axis=-1, keepdims=True) * (1.0 / x.shape[-1]) + eps)
    y = wide * rstd
    if weight is not None:
        y *= widened(weight)
    return y.astype(x.dtype, copy=False), rstd[..., 0]


def rms_norm_backward_definition(dy: Array, x: Array, rstd: Array, weight: Array | None) -> tuple[Array, Array]:
    """The derivative in array operations, for every dtype and backend; computed in float32 or better."""
    dtype, cols = x.dtype, x.shape[-1]
    dy, x = widened(dy), widened(x)
    n = x * rstd[..., None]
    g = dy if weight is None else dy * widened(weight)
    dx = n * ((g * n).sum(axis=-1, keepdims=True) * (-1.0 / cols))
    dx += g
    dx *= rstd[..., None]
    dweight = backend_of(x).sum_rows((dy * n).reshape(-1, cols))
    return dx.astype(dtype, copy=False), dweight.astype(dtype, copy=False)


def machine_epsilon(x: Array) -> float:
    """Of the dtype in which ``x`` is computed: float32 for 16-bit floats."""
    return float(np.finfo(np.float64 if x.dtype.itemsize == 8 else np.float32).eps)


# -- which kernels run -----------------------------------------------------------------------------------------------


@explained("rms_norm")
def _explain_forward(x: Array, weight: Array | None = None, eps: float | None = None) -> Plan | Plans:
    check_rows("rms_norm", x, weight=weight)
    return explain_rows(backend_of(x), x, weight, centred=False)


@explained("rms_norm_backward")
def _explain_backward(dy: Array, x: Array, rstd: Array, weight: Array | None = None) -> Plan | Plans:
    check_rows("rms_norm_backward", x, weight=weight)
    check_gradient("rms_norm_backward", dy, x)
    return explain_rows(common_backend(dy, x), x, dy, weight, centred=False, backward=True)
