"""The absolute error."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .reduction import Loss, check_reduction, check_weight, matched, reduce_losses


@op
def l1_loss(prediction: Array, targets: Array, reduction: str = "mean", weight: Array | None = None) -> Any:
    """``|prediction - targets|``, elementwise; the derivative where they agree is 0.

    Args:
        prediction: any shape, floating.
        targets: the same shape and dtype; integers are taken as numbers.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        weight: of each loss, the same shape; the mean then divides by the sum of the weights. It gets no gradient.
    Raises:
        ValueError: the shapes differ (nothing is broadcast), or there is nothing to take the mean of.
    """
    check_reduction("l1_loss", reduction)
    dtype, backend = prediction.dtype, backend_of(prediction)
    xp = backend.xp
    weight = check_weight("l1_loss", weight, prediction, broadcast=False)
    x, t = matched("l1_loss", prediction, targets)
    error = x - t
    slopes = (lambda: xp.sign(error), lambda: -xp.sign(error))
    count = None if weight is None else weight.sum()
    return reduce_losses("l1_loss", backend, xp.abs(error), reduction, dtype, slopes, weight=weight, count=count)


class L1Loss(Loss):
    """Mean absolute error; see :func:`l1_loss`."""

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return l1_loss(prediction, targets, self.reduction)
