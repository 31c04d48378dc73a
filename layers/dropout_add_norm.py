"""A residual, dropout and a norm in one operation: what stands between two sublayers of a transformer."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import op
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator, backend_of
from ..kernels.dropout_add_norm import check_dropout_add
from .drop import check_dropping
from .layer_norm import as_shape, check_affine


def dropout_add_layer_norm(
    x: Any,
    residual: Any,
    normalized_shape: int | tuple[int, ...],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    p: float = 0.0,
    *,
    training: bool = True,
    rng: Generator | None = None,
) -> tuple[Any, Any]:
    """``total = residual + dropout(x, p)`` and ``y = layer_norm(total)``: one operation, about one launch on CUDA.

    A post-norm block goes on with ``y``; a pre-norm block feeds ``y`` to the next sublayer and ``total`` to the next
    residual. The mask is the one that :func:`dropout` draws from ``rng``, bit for bit.

    Args:
        x: what the sublayer gave, shape ``(..., *normalized_shape)``, floating.
        residual: of the shape and dtype of ``x``.
        normalized_shape, weight, bias, eps: as for :func:`layer_norm`.
        p: probability of dropping, in [0, 1].
        training: without it nothing is dropped.
        rng: the stream of masks, which moves on by ``x.size`` words; a fresh generator by default.
    Returns:
        ``(y, total)``, both of the shape and dtype of ``x``.
    """
    dropping = _dropping("dropout_add_layer_norm", x, residual, p, training, rng)
    shape = as_shape("dropout_add_layer_norm", normalized_shape)
    return _layer_norm(x, residual, weight, bias, shape, eps, dropping)


def dropout_add_rms_norm(
    x: Any,
    residual: Any,
    normalized_shape: int | tuple[int, ...],
    weight: Any = None,
    eps: float | None = None,
    p: float = 0.0,
    *,
    training: bool = True,
    rng: Generator | None = None,
) -> tuple[Any, Any]:
    """``total = residual + dropout(x, p)`` and ``y = rms_norm(total)``: see :func:`dropout_add_layer_norm`.

    Args:
        eps: as for :func:`rms_norm`; None is the machine epsilon of ``x``.
    Returns:
        ``(y, total)``, both of the shape and dtype of ``x``.
    """
    dropping = _dropping("dropout_add_rms_norm", x, residual, p, training, rng)
    shape = as_shape("dropout_add_rms_norm", normalized_shape)
    return _rms_norm(x, residual, weight, shape, eps, dropping)


def _dropping(name: str, x: Any, residual: Any, p: float, training: bool, rng: Generator | None) -> Any:
    """The probability and the stream, or None where nothing is dropped."""
    require_arrays(name, x=x, residual=residual)
    p = check_dropping(name, x, p)
    rng = as_generator(name, rng)
    if tuple(residual.shape) != tuple(x.shape):
        raise ValueError(f"{name}: residual must have the shape of x, {tuple(x.shape)}, got {tuple(residual.shape)}")
    return (p, rng) if training and p > 0 else None


def _drawn(dropping: tuple[float, Generator] | None, x: Array) -> kernels.Dropout | None:
    """What is dropped; the stream moves on. Only called when nothing can be refused any more."""
    return None if dropping is None else kernels.Dropout(dropping[0], *dropping[1].reserve(x.size))


@op
def _layer_norm(
    x: Array,
    residual: Array,
    weight: Array | None,
    bias: Array | None,
    shape: tuple[int, ...],
    eps: float,
    dropping: Any,
) -> Any:
    check_affine("dropout_add_layer_norm", x, shape, weight=weight, bias=bias)
    before, cols = x.shape, math.prod(shape)
    rows = (*before[: x.ndim - len(shape)], cols)
    w, b = (None if a is None else a.reshape(cols) for a in (weight, bias))
    x, residual = x.reshape(rows), residual.reshape(rows)
    eps = check_dropout_add("dropout_add_layer_norm", x, residual, eps, weight=w, bias=b)
    dropout = _drawn(dropping, x)
    y, total, mean, rstd = kernels.dropout_add_layer_norm(x, residual, w, b, eps, dropout)

    def backward(dy: Array | None, dtotal: Array | None) -> Any:
        dy, dtotal = _gradients(dy, dtotal, total)
        dx, dresidual, dweight, dbias = kernels.dropout_add_layer_norm_backward(
            dy, total, mean, rstd, w, dtotal, dropout
        )
        return (
            dx.reshape(before),
            dresidual.reshape(before),
            None if weight is None else dweight.reshape(shape),
            None if bias is None else dbias.reshape(shape),
        )

    return (y.reshape(before), total.reshape(before)), backward


@op
def _rms_norm(
    x: Array,
    residual: Array,
    weight: Array | None,
    shape: tuple[int, ...],
    eps: float | None,
    dropping: Any,
) -> Any:
    check_affine("dropout_add_rms_norm", x, shape, weight=weight)
    before, cols = x.shape, math.prod(shape)
    rows = (*before[: x.ndim - len(shape)], cols)
    w = None if weight is None else weight.reshape(cols)
    x, residual = x.reshape(rows), residual.reshape(rows)
    eps = check_dropout_add("dropout_add_rms_norm", x, residual, eps, weight=w)
    dropout = _drawn(dropping, x)
    y, total, rstd = kernels.dropout_add_rms_norm(x, residual, w, eps, dropout)

    def backward(dy: Array | None, dtotal: Array | None) -> Any:
        dy, dtotal = _gradients(dy, dtotal, total)
        dx, dresidual, dweight = kernels.dropout_add_rms_norm_backward(dy, total, rstd, w, dtotal, dropout)
        return dx.reshape(before), dresidual.reshape(before), None if weight is None else dweight.reshape(shape)

    return (y.reshape(before), total.reshape(before)), backward


def _gradients(dy: Array | None, dtotal: Array | None, total: Array) -> tuple[Array, Array | None]:
    """Both gradients in the shape of ``total``; that of the norm is 0 where none has arrived."""
    dy = backend_of(total).xp.zeros_like(total) if dy is None else dy.reshape(total.shape)
    return dy, None if dtotal is None else dtotal.reshape(total.shape)
