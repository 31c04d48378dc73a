"""Squared error near 0 and absolute error far from it: Huber's loss, and its other scaling, smooth L1."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .l1_loss import l1_loss
from .real import real
from .reduction import Loss, check_reduction, check_weight, matched, reduce_losses


@op
def huber_loss(
    prediction: Array, targets: Array, reduction: str = "mean", delta: float = 1.0, weight: Array | None = None
) -> Any:
    """``e² / 2`` for ``|e| < δ``, else ``δ (|e| - δ / 2)``, of ``e = prediction - targets``, elementwise.

    Args:
        prediction: any shape, floating.
        targets: the same shape and dtype; integers are taken as numbers.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
        delta: δ, where the parabola becomes a line; above 0.
        weight: of each loss, the same shape; the mean still divides by the number of elements, as in PyTorch, where
            :func:`l1_loss` and :func:`mse_loss` divide by the sum of the weights. It gets no gradient.
    Source: Huber 1964, "Robust estimation of a location parameter".
    """
    check_reduction("huber_loss", reduction)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be above 0, got {delta}")
    weight = check_weight("huber_loss", weight, prediction, broadcast=False)
    return _parabola_and_lines("huber_loss", prediction, targets, reduction, float(delta), 1.0, weight)


@op
def _smooth_l1_loss(prediction: Array, targets: Array, reduction: str, beta: float) -> Any:
    return _parabola_and_lines("smooth_l1_loss", prediction, targets, reduction, beta, 1.0 / beta, None)


def smooth_l1_loss(prediction: Any, targets: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``e² / (2 β)`` for ``|e| < β``, else ``|e| - β / 2``: Huber's loss divided by β; the absolute error for β = 0.

    Args:
        prediction: any shape, floating.
        targets: the same shape and dtype; integers are taken as numbers.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
        beta: β, where the parabola becomes a line; not negative.
    Source: Girshick 2015, "Fast R-CNN", arXiv 1504.08083, equation 3.
    """
    check_reduction("smooth_l1_loss", reduction)
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    if beta == 0:
        return l1_loss(prediction, targets, reduction)
    return _smooth_l1_loss(prediction, targets, reduction, float(beta))


def _parabola_and_lines(
    function: str, prediction: Array, targets: Array, reduction: str, edge: float, scale: float, weight: Any
) -> Any:
    dtype, backend = prediction.dtype, backend_of(prediction)
    xp = backend.xp
    x, t = matched(function, prediction, targets)
    error = x - t
    near = xp.clip(error, -edge, edge)
    losses = near * (error - near * 0.5) * scale  # with near = e inside, ±edge outside
    slopes = (lambda: near * scale, lambda: near * -scale)
    return reduce_losses(function, backend, losses, reduction, dtype, slopes, weight=weight)


class HuberLoss(Loss):
    """Huber's loss; see :func:`huber_loss`."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = real("HuberLoss", "delta", delta)

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return huber_loss(prediction, targets, self.reduction, self.delta)


class SmoothL1Loss(Loss):
    """Huber's loss divided by its edge; see :func:`smooth_l1_loss`."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = real("SmoothL1Loss", "beta", beta)

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return smooth_l1_loss(prediction, targets, self.reduction, self.beta)
