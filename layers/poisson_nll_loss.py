"""The Poisson likelihood of counts."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .real import real
from .reduction import Loss, check_reduction, matched, quiet, reduce_losses


@op
def poisson_nll_loss(
    prediction: Array,
    targets: Array,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Any:
    """``exp(x) - t x``, where ``x`` is the logarithm of the expected count, elementwise.

    Args:
        prediction: x, any shape; with ``log_input=False`` the expected count itself: ``x - t log(x + eps)``.
        targets: the counts, the same shape and dtype; integers are taken as numbers.
        log_input: whether ``prediction`` is a logarithm.
        full: whether ``log t!`` is added for counts above 1, by Stirling: ``t log t - t + log(2 π t) / 2``.
        eps: keeps the logarithm of an expected count of 0 finite.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    """
    check_reduction("poisson_nll_loss", reduction)
    dtype, backend = prediction.dtype, backend_of(prediction)
    xp = backend.xp
    x, t = matched("poisson_nll_loss", prediction, targets)
    zero = x.dtype.type(0)
    with quiet(backend):
        mean = xp.exp(x) if log_input else x
        log_mean = x if log_input else xp.log(x + eps)
        losses = mean - t * log_mean
        if full:
            log_t = xp.log(xp.maximum(t, x.dtype.type(1)))
            losses += xp.where(t > 1, t * log_t - t + 0.5 * (log_t + math.log(2 * math.pi)), zero)

    def dprediction() -> Array:
        return mean - t if log_input else 1 - t / (x + eps)

    def dtargets() -> Array:
        return -log_mean + xp.where(t > 1, log_t + 0.5 / t, zero) if full else -log_mean

    return reduce_losses("poisson_nll_loss", backend, losses, reduction, dtype, (dprediction, dtargets))


class PoissonNLLLoss(Loss):
    """Poisson likelihood of counts; see :func:`poisson_nll_loss`."""

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = real("PoissonNLLLoss", "eps", eps)

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return poisson_nll_loss(prediction, targets, self.log_input, self.full, self.eps, self.reduction)
