"""The squared error: the Gaussian likelihood of a fixed variance."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .reduction import Loss, check_reduction, check_weight, matched, narrowed, reduce_losses, widened

_FEW = 1 << 14  # elements


@op
def mse_loss(prediction: Array, targets: Array, reduction: str = "mean", weight: Array | None = None) -> Any:
    """``(prediction - targets)**2``: its mean over all elements, its sum, or each.

    Args:
        prediction: any shape, floating.
        targets: the same shape and dtype; integers are taken as numbers.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        weight: of each loss, the same shape; the mean then divides by the sum of the weights. It gets no gradient.
    Raises:
        ValueError: the shapes differ (nothing is broadcast), or there is nothing to take the mean of.
    """
    check_reduction("mse_loss", reduction)
    dtype, backend = prediction.dtype, backend_of(prediction)
    x, t = matched("mse_loss", prediction, targets)
    error = x - t
    if reduction == "none" or weight is not None or error.size == 0:
        weight = check_weight("mse_loss", weight, prediction, broadcast=False)
        slopes = (lambda: error * 2, lambda: error * -2)
        count = None if weight is None else weight.sum()
        return reduce_losses("mse_loss", backend, error * error, reduction, dtype, slopes, weight=weight, count=count)
    flat = error.reshape(-1)
    scale = 1.0 / error.size if reduction == "mean" else 1.0

    def gradient(factor: float) -> Any:
        return lambda dy, out: narrowed(backend, error * (widened(dy) * (factor * scale)), dtype)

    # a product adds up one after another and loses digits where there are many; a sum goes in pairs
    total = backend.xp.dot(flat, flat) if flat.size <= _FEW else backend.xp.square(flat).sum()
    return narrowed(backend, total * scale, dtype), (gradient(2.0), gradient(-2.0))


class MSELoss(Loss):
    """Mean squared error; see :func:`mse_loss`."""

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return mse_loss(prediction, targets, self.reduction)
