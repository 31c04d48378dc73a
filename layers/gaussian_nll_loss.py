"""The Gaussian likelihood with a variance that is predicted too."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .real import real
from .reduction import Loss, check_reduction, matched, narrowed, reduce_losses, widened


@op
def gaussian_nll_loss(
    prediction: Array,
    targets: Array,
    var: Array,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """``(log v + (prediction - targets)² / v) / 2`` with ``v = max(var, eps)``, elementwise.

    As in PyTorch the bound on ``v`` is not seen by the derivative: a variance below ``eps`` is still pushed up.

    Args:
        prediction: the expected value, any shape.
        targets: the same shape and dtype; integers are taken as numbers.
        var: the variance, not negative, same dtype: of the same shape, or with length 1 in one place, or without the
            last axis.
        full: whether the constant ``log(2 π) / 2`` is added.
        eps: the smallest variance.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: shapes do not fit, or a variance is negative (on CUDA its loss is NaN).
    """
    check_reduction("gaussian_nll_loss", reduction)
    dtype, shape, backend = prediction.dtype, prediction.shape, backend_of(prediction)
    xp = backend.xp
    if not eps > 0:
        raise ValueError(f"gaussian_nll_loss: eps must be above 0, got {eps}")
    x, t = matched("gaussian_nll_loss", prediction, targets)
    if var.dtype != dtype:
        raise TypeError(f"gaussian_nll_loss: var must have the prediction's dtype {dtype}, got {var.dtype}")
    var_shape = var.shape
    spread = var.reshape(*var_shape, 1) if var_shape == shape[:-1] and shape else var
    others = [b for a, b in zip(shape, spread.shape, strict=False) if a != b]
    if spread.ndim != x.ndim or others not in ([], [1]):
        raise ValueError(
            f"gaussian_nll_loss: var must have shape {shape}, with length 1 in one place, or {shape[:-1]}, "
            f"got {var_shape}"
        )
    spread = widened(spread)
    if backend.runs_cuda:
        spread = xp.where(spread < 0, spread.dtype.type(math.nan), spread)
    elif (spread < 0).any():
        raise ValueError(f"gaussian_nll_loss: var must not be negative, got {spread.min()}")
    v = xp.maximum(spread, spread.dtype.type(eps))
    error = x - t
    scaled = error / v
    losses = (xp.log(v) + error * scaled) * 0.5
    if full:
        losses += 0.5 * math.log(2 * math.pi)

    def dvar() -> Array:
        return (1 / v - scaled * scaled) * 0.5

    y, (dx, dt, wide_dvar) = reduce_losses(
        "gaussian_nll_loss", backend, losses, reduction, dtype, (lambda: scaled, lambda: -scaled, dvar)
    )

    def summed(dy: Array, out: Any) -> Array:  # over the axis that was repeated
        g = wide_dvar(dy, out)
        for axis, length in enumerate(spread.shape):
            if length != g.shape[axis]:
                g = narrowed(backend, widened(g).sum(axis=axis, keepdims=True), dtype)
        return g.reshape(var_shape)

    return y, (dx, dt, summed)


class GaussianNLLLoss(Loss):
    """Gaussian likelihood with a predicted variance; see :func:`gaussian_nll_loss`."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        self.eps = real("GaussianNLLLoss", "eps", eps)

    def forward(self, prediction: Any, targets: Any, var: Any) -> Tensor:
        return gaussian_nll_loss(prediction, targets, var, self.full, self.eps, self.reduction)
