"""The Kullback-Leibler divergence of two distributions."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .reduction import REDUCTIONS, Loss, check_reduction, matched, quiet, reduce_losses

_REDUCTIONS = (*REDUCTIONS, "batchmean")


@op
def kl_div(log_probabilities: Array, targets: Array, reduction: str = "mean", log_target: bool = False) -> Any:
    """``t (log t - x)``, elementwise, where ``x`` are *log* probabilities; 0 where ``t`` is 0.

    Args:
        log_probabilities: of the model, any shape.
        targets: the true probabilities, the same shape and dtype; with ``log_target`` their logarithms.
        reduction: ``"batchmean"`` (the sum over all elements divided by the length of axis 0) is the divergence as it
            is defined; ``"mean"``, the default as in PyTorch, divides by the number of elements, which is smaller by
            the number of classes; ``"sum"``; ``"none"``.
        log_target: whether ``targets`` are logarithms.
    """
    check_reduction("kl_div", reduction, _REDUCTIONS)
    dtype, backend = log_probabilities.dtype, backend_of(log_probabilities)
    xp = backend.xp
    x, t = matched("kl_div", log_probabilities, targets, "log_probabilities, targets")
    count = None
    if reduction == "batchmean":
        if not x.ndim:
            raise ValueError('kl_div: reduction="batchmean" needs an axis 0, got shape ()')
        reduction, count = "mean", x.shape[0]
    zero = x.dtype.type(0)
    with quiet(backend):
        log_t = t if log_target else xp.log(t)
        t = xp.exp(t) if log_target else t
        losses = xp.where(t == 0, zero, t * (log_t - x))

    def dtargets() -> Array:
        slope = log_t - x + 1
        return losses + t if log_target else xp.where(t == 0, zero, slope)

    return reduce_losses("kl_div", backend, losses, reduction, dtype, (lambda: -t, dtargets), count=count)


class KLDivLoss(Loss):
    """Kullback-Leibler divergence from log probabilities; see :func:`kl_div`."""

    reductions = _REDUCTIONS

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, log_probabilities: Any, targets: Any) -> Tensor:
        return kl_div(log_probabilities, targets, self.reduction, self.log_target)
