"""Layer norm and RMS norm with dropout and a residual in front: the sum and its norm, as a transformer block needs.

``total = residual + keep * x / (1 - p)`` and ``y = norm(total)``: one launch on CUDA (``layer_norm.cu``), one pass over
each chunk of rows on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend
from . import _norm_cuda, layer_norm_numpy, rms_norm_numpy
from ._launch import Plan, Plans, contiguous, explained
from ._norm_cuda import NOTHING_DROPPED
from .activation import Dropout, kept
from .layer_norm import (
    check_gradient,
    check_rows,
    explain_rows,
    layer_norm_backward_definition,
    layer_norm_definition,
    widened,
)
from .rms_norm import machine_epsilon, rms_norm_backward_definition, rms_norm_definition
from .scalars import not_negative


def dropout_add_layer_norm(
    x: Array,
    residual: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    dropout: Dropout | None = None,
) -> tuple[Array, Array, Array, Array]:
    """``total = residual + keep * x / (1 - p)`` and ``y = layer_norm(total)`` over the last axis.

    The mask is the one that ``lamella.layers.dropout`` draws at the same place of the stream. The norm is that of
    ``total`` as it is rounded to its dtype.

    Args:
        x: shape ``(..., D)``; float16, bfloat16, float32 or float64.
        residual: of the shape and dtype of ``x``; or None.
        weight, bias: shape ``(D,)``, of the dtype of ``x``; or None.
        eps: added to the variance.
        dropout: which values of ``x`` are dropped; None for none.
    Returns:
        ``y`` and ``total`` like ``x``; ``mean`` and ``rstd`` of shape ``(...)`` as from :func:`layer_norm`.
    Raises:
        TypeError: ``x`` is not floating, or the dtypes differ. ValueError: shapes do not fit, or p is not in [0, 1].
    """
    eps = check_dropout_add("dropout_add_layer_norm", x, residual, eps, weight=weight, bias=bias)
    y, total, mean, rstd = _forward("dropout_add_layer_norm", x, residual, weight, bias, eps, dropout, centred=True)
    return y, total, mean, rstd


def dropout_add_rms_norm(
    x: Array,
    residual: Array | None = None,
    weight: Array | None = None,
    eps: float | None = None,
    dropout: Dropout | None = None,
) -> tuple[Array, Array, Array]:
    """``total = residual + keep * x / (1 - p)`` and ``y = rms_norm(total)``: see :func:`dropout_add_layer_norm`.

    Returns:
        ``y`` and ``total`` like ``x``, and ``rstd`` of shape ``(...)`` as from :func:`rms_norm`.
    """
    eps = check_dropout_add("dropout_add_rms_norm", x, residual, eps, weight=weight)
    y, total, _, rstd = _forward("dropout_add_rms_norm", x, residual, weight, None, eps, dropout, centred=False)
    return y, total, rstd


def dropout_add_layer_norm_backward(
    dy: Array,
    total: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None = None,
    dtotal: Array | None = None,
    dropout: Dropout | None = None,
) -> tuple[Array, Array, Array, Array]:
    """The gradients of ``x``, ``residual``, ``weight`` and ``bias``.

    ``dresidual = dtotal + (the gradient of layer norm at total)`` and ``dx = keep * dresidual / (1 - p)``.

    Args:
        dy, dtotal: gradients of ``y`` and, unless None, of ``total``.
        total, mean, rstd: what :func:`dropout_add_layer_norm` returned. weight, dropout: what it was given.
    Returns:
        ``dx``, ``dresidual``, ``dweight``, ``dbias``. Without dropout ``dresidual`` shares the memory of ``dx``.
    """
    name = "dropout_add_layer_norm_backward"
    dx, dresidual, dweight, dbias = _backward(name, dy, total, mean, rstd, weight, dtotal, dropout)
    return dx, dresidual, dweight, dbias


def dropout_add_rms_norm_backward(
    dy: Array,
    total: Array,
    rstd: Array,
    weight: Array | None = None,
    dtotal: Array | None = None,
    dropout: Dropout | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of ``x``, ``residual`` and ``weight``: see :func:`dropout_add_layer_norm_backward`."""
    return _backward("dropout_add_rms_norm_backward", dy, total, None, rstd, weight, dtotal, dropout)[:3]


def _drop_definition(x: Array, dropout: Dropout) -> Array:
    """``keep * x / (1 - p)`` in float32 or better: a new array."""
    wide = widened(x)
    if not dropout.threshold:
        return wide.copy() if wide is x else wide
    wide = wide * kept(x, x.shape, dropout)
    wide *= dropout.scale
    return wide


# -- both norms ------------------------------------------------------------------------------------------------------


def _forward(
    function: str,
    x: Array,
    residual: Array | None,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    dropout: Dropout | None,
    centred: bool,
) -> tuple[Array, Array, Array, Array]:
    dropout = _check(function, dropout)
    backend = backend_of(x) if residual is None else common_backend(x, residual)
    device = backend.device_of(x)
    if backend.runs_cuda and x.size:
        x, residual, weight, bias = (contiguous(backend, a) for a in (x, residual, weight, bias))
        y, total = (backend.empty(x.shape, x.dtype, device) for _ in range(2))
        call = _norm_cuda.rows_of(backend, x, residual, y, total, weight, bias, centred=centred, fused=True)
        if _norm_cuda.why_not(call) is None:
            mean, rstd = _norm_cuda.launch_forward(backend, call, x, y, total, residual, weight, bias, eps, dropout)
            lead = x.shape[:-1]
            return y, total, None if mean is None else mean.reshape(lead), rstd.reshape(lead)
    if backend.xp is not np or x.dtype.itemsize == 2 or not x.size:
        wide = _drop_definition(x, dropout)
        if residual is not None:
            wide += widened(residual)
        total = wide.astype(x.dtype, copy=False)
        if centred:
            y, mean, rstd = layer_norm_definition(total, weight, bias, eps)
            return y, total, mean, rstd
        y, rstd = rms_norm_definition(total, weight, eps)
        return y, total, None, rstd
    cols = x.shape[-1]
    rows = (x.size // cols, cols)
    y, total = (backend.empty(rows, x.dtype, device) for _ in range(2))
    mean, rstd = np.empty(rows[0], x.dtype), np.empty(rows[0], x.dtype)
    prepare = _summing(x.reshape(rows), None if residual is None else residual.reshape(rows), total, dropout)
    if centred:
        layer_norm_numpy.layer_norm_rows(total, weight, bias, eps, y, mean, rstd, prepare)
    else:
        rms_norm_numpy.rms_norm_rows(total, weight, eps, y, rstd, prepare)
    lead = x.shape[:-1]
    return y.reshape(x.shape), total.reshape(x.shape), mean.reshape(lead) if centred else None, rstd.reshape(lead)


def _backward(
    function: str,
    dy: Array,
    total: Array,
    mean: Array | None,
    rstd: Array,
    weight: Array | None,
    dtotal: Array | None,
    dropout: Dropout | None,
) -> tuple[Array, Array, Array, Array]:
    check_rows(function, total, weight=weight)
    check_gradient(function, dy, total)
    if dtotal is not None:
        check_gradient(function, dtotal, total, "dtotal")
    dropout = _check(function, dropout)
    backend, shape = common_backend(dy, total), total.shape
    device = backend.device_of(total)
    if backend.runs_cuda and total.size:
        dy, total, dtotal, weight, mean, rstd = (
            contiguous(backend, a) for a in (dy, total, dtotal, weight, mean, rstd)
        )
        dresidual = backend.empty(shape, total.dtype, device)
        dx = backend.empty(shape, total.dtype, device) if dropout.threshold else None
        call = _norm_cuda.rows_of(
            backend, total, dy, dtotal, dresidual, dx, weight, centred=mean is not None, fused=True
        )
        if _norm_cuda.why_not(call) is None:
            dweight, dbias = _norm_cuda.launch_backward(
                backend, call, dy, total, mean, rstd, weight, dx, dtotal, dresidual, dropout, mean is not None
            )
            return (_same(dresidual) if dx is None else dx), dresidual, dweight, dbias
    if backend.xp is not np or total.dtype.itemsize == 2 or not total.size:
        if mean is None:
            dz, dweight = rms_norm_backward_definition(dy, total, rstd, weight)
            dbias = None
        else:
            dz, dweight, dbias = layer_norm_backward_definition(dy, total, mean, rstd, weight)
        if dtotal is not None:
            dz = (widened(dz) + widened(dtotal)).astype(total.dtype, copy=False)
        dx = _drop_definition(dz, dropout).astype(total.dtype, copy=False) if dropout.threshold else _same(dz)
        return dx, dz, dweight, dbias
    cols = shape[-1]
    rows = (total.size // cols, cols)
    dresidual = backend.empty(rows, total.dtype, device)
    dx = backend.empty(rows, total.dtype, device) if dropout.threshold else None
    finish = _spreading(dresidual, None if dtotal is None else dtotal.reshape(rows), dx, dropout)
    flat = (dy.reshape(rows), total.reshape(rows))
    if mean is None:
        dweight = rms_norm_numpy.rms_norm_rows_backward(*flat, rstd.reshape(-1), weight, dresidual, finish)
        dbias = None
    else:
        dweight, dbias = layer_norm_numpy.layer_norm_rows_backward(
            *flat, mean.reshape(-1), rstd.reshape(-1), weight, dresidual, finish
        )
    dresidual = dresidual.reshape(shape)
    return (_same(dresidual) if dx is None else dx.reshape(shape)), dresidual, dweight, dbias


def _same(array: Array) -> Array:
    """The array's memory as another array, which says that it is a view: nobody then adds to it in place."""
    return array[...]


def _summing(x: Any, residual: Any, total: Any, dropout: Dropout) -> Callable[[int, int], None]:
    """What fills the rows ``start … stop`` of ``total``."""
    keep = kept(x, x.shape, dropout) if dropout.threshold else None  # drawn at once: that is twice as fast as in chunks

    def prepare(start: int, stop: int) -> None:
        part, out = x[start:stop], total[start:stop]
        if keep is not None:
            np.multiply(part, keep[start:stop], out)
            np.multiply(out, dropout.scale, out)
            if residual is not None:
                np.add(out, residual[start:stop], out)
        elif residual is None:
            np.copyto(out, part)
        else:
            np.add(part, residual[start:stop], out)

    return prepare


def _spreading(dz: Any, dtotal: Any, dx: Any, dropout: Dropout) -> Callable[[int, int], None]:
    """What finishes the rows ``start … stop`` of the gradient of the sum, and hands them to ``x``."""
    keep = None if dx is None else kept(dz, dz.shape, dropout)

    def finish(start: int, stop: int) -> None:
        part = dz[start:stop]
        if dtotal is not None:
            np.add(part, dtotal[start:stop], part)
        if keep is not None:
            np.multiply(part, keep[start:stop], dx[start:stop])
            np.multiply(dx[start:stop], dropout.scale, dx[start:stop])

    return finish


def check_dropout_add(
    function: str, x: Array, residual: Array | None, eps: float | None, **parameters: Array | None
) -> float:
    """``eps`` as it is computed with, or an error that says what is wrong; nothing is computed, nothing drawn."""
    check_rows(function, x, **parameters)
    common_backend(x, *(a for a in (residual, *parameters.values()) if a is not None))
    if residual is not None:
        check_gradient(function, residual, x, "residual")
    if eps is None and function == "dropout_add_rms_norm":
        return machine_epsilon(x)
    return not_negative(function, "eps", eps)


def _check(function: str, dropout: Dropout | None) -> Dropout:
    if dropout is None:
        return NOTHING_DROPPED
    if not 0 <= dropout.p <= 1:
        raise ValueError(f"{function}: the dropout's p must be in [0, 1], got {dropout.p}")
    return dropout


@explained("dropout_add_layer_norm")
def _explain_layer_norm(
    x: Array,
    residual: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    **options: Any,
) -> Plan | Plans:
    check_rows("dropout_add_layer_norm", x, weight=weight, bias=bias)
    return _explain(x, residual, weight, bias, centred=True)


@explained("dropout_add_rms_norm")
def _explain_rms_norm(
    x: Array, residual: Array | None = None, weight: Array | None = None, **options: Any
) -> Plan | Plans:
    check_rows("dropout_add_rms_norm", x, weight=weight)
    return _explain(x, residual, weight, centred=False)


def _explain(x: Array, residual: Array | None, *others: Array | None, centred: bool) -> Plan | Plans:
    backend: Backend = backend_of(x)
    if residual is not None:
        check_gradient("explain", residual, x, "residual")
    return explain_rows(backend, x, residual, *others, centred=centred, fused=True)


@explained("dropout_add_layer_norm_backward")
def _explain_layer_norm_backward(
    dy: Array, total: Array, mean: Array, rstd: Array, weight: Array | None = None, **options: Any
) -> Plan | Plans:
    return _explain_backward("dropout_add_layer_norm_backward", dy, total, weight, centred=True)


@explained("dropout_add_rms_norm_backward")
def _explain_rms_norm_backward(
    dy: Array, total: Array, rstd: Array, weight: Array | None = None, **options: Any
) -> Plan | Plans:
    return _explain_backward("dropout_add_rms_norm_backward", dy, total, weight, centred=False)


def _explain_backward(function: str, dy: Array, total: Array, weight: Array | None, centred: bool) -> Plan | Plans:
    check_rows(function, total, weight=weight)
    check_gradient(function, dy, total)
    return explain_rows(common_backend(dy, total), total, dy, weight, centred=centred, fused=True, backward=True)
