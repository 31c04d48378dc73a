"""The squared error."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .module import Module
from .reduction import check_reduction


@op
def mse_loss(prediction: Array, targets: Array, reduction: str = "mean") -> Any:
    """``(prediction - targets)**2``: its mean over all elements, its sum, or each.

    Args:
        prediction: any shape, floating.
        targets: the same shape and dtype.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: the shapes differ (nothing is broadcast), or there is nothing to take the mean of.
    """
    check_reduction("mse_loss", reduction)
    if prediction.shape != targets.shape:
        raise ValueError(
            f"mse_loss: prediction and targets must have one shape, got {prediction.shape} and {targets.shape}"
        )
    if prediction.dtype != targets.dtype:
        raise TypeError(
            f"mse_loss: prediction and targets must have one dtype, got {prediction.dtype} and {targets.dtype}"
        )
    error = prediction - targets
    if reduction == "none":
        return error * error, (
            lambda dy, out: error * (2 * dy),
            lambda dy, out: error * (-2 * dy),
        )
    if reduction == "mean" and error.size == 0:
        raise ValueError(f"mse_loss: the mean of no elements is undefined, got shape {prediction.shape}")
    scale = 1.0 / error.size if reduction == "mean" else 1.0
    flat = error.reshape(-1)
    total = backend_of(error).xp.dot(flat, flat) * scale
    return total, (
        lambda dy, out: error * (dy * (2 * scale)),
        lambda dy, out: error * (dy * (-2 * scale)),
    )


class MSELoss(Module):
    """Mean squared error; see :func:`mse_loss`."""

    def __init__(self, reduction: str = "mean") -> None:
        check_reduction("MSELoss", reduction)
        self.reduction = reduction

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return mse_loss(prediction, targets, self.reduction)
