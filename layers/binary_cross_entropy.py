"""Cross entropy of yes and no, from logits (stable) or from probabilities: the Bernoulli likelihood."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, Backend, backend_of
from .reduction import Loss, check_reduction, check_weight, constant, matched, quiet, reduce_losses

_LOWEST_LOG = -100.0  # a wrong probability of exactly 0 or 1 costs so much, not infinity; PyTorch's choice
_SMALLEST_VARIANCE = 1e-12  # of p (1 - p) in the derivative; PyTorch's choice


@op
def binary_cross_entropy_with_logits(
    logits: Array,
    targets: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> Any:
    """``-[pos_weight t log σ(x) + (1 - t) log(1 - σ(x))]``, elementwise, stable for logits of any size.

    Args:
        logits: any shape.
        targets: the probability of yes, 0 … 1, the same shape and dtype; integers are taken as numbers.
        weight: of each loss; a shape that broadcasts to that of ``logits``. A constant, it gets no gradient.
        pos_weight: of the part for yes, such as (number of no) / (number of yes); a shape that broadcasts. A constant.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    """
    check_reduction("binary_cross_entropy_with_logits", reduction)
    dtype, backend = logits.dtype, backend_of(logits)
    weight = check_weight("binary_cross_entropy_with_logits", weight, logits)
    positive = check_weight("binary_cross_entropy_with_logits", pos_weight, logits, "pos_weight")
    x, t = matched("binary_cross_entropy_with_logits", logits, targets, "logits, targets")
    no, yes = softplus_of_both_signs(backend, x)  # -log(1 - σ(x)), -log σ(x)
    with quiet(backend):  # infinite logits
        losses = t * yes + (1 - t) * no if positive is None else positive * t * yes + (1 - t) * no

    def dlogits() -> Array:  # (1 - t) σ(x) - pos_weight t σ(-x), where neither σ has lost its small values
        xp = backend.xp
        e = xp.exp(-xp.abs(x))
        larger = 1 / (1 + e)
        smaller = e * larger
        up, down = xp.where(x >= 0, larger, smaller), xp.where(x >= 0, smaller, larger)
        return (1 - t) * up - (t if positive is None else positive * t) * down

    def dtargets() -> Array:
        return (yes if positive is None else positive * yes) - no

    slopes = (dlogits, dtargets)
    return reduce_losses("binary_cross_entropy_with_logits", backend, losses, reduction, dtype, slopes, weight=weight)


def softplus_of_both_signs(backend: Backend, x: Array) -> tuple[Array, Array]:
    """``log(1 + exp(x))`` and ``log(1 + exp(-x))`` without overflow."""
    xp = backend.xp
    common = xp.log1p(xp.exp(-xp.abs(x)))
    zero = x.dtype.type(0)
    return xp.maximum(x, zero) + common, xp.maximum(-x, zero) + common


@op
def binary_cross_entropy(
    probabilities: Array, targets: Array, weight: Array | None = None, *, reduction: str = "mean"
) -> Any:
    """``-[t log p + (1 - t) log(1 - p)]``, elementwise, each logarithm at least -100 as in PyTorch.

    From logits :func:`binary_cross_entropy_with_logits` is exact where this one has already lost ``1 - p``.

    Args:
        probabilities: of yes, 0 … 1, any shape.
        targets: the true probability of yes, 0 … 1, the same shape and dtype; integers are taken as numbers.
        weight: of each loss; a shape that broadcasts to that of ``probabilities``. A constant, it gets no gradient.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: shapes do not fit, or a probability lies outside 0 … 1 (on CUDA its loss is NaN).
    """
    check_reduction("binary_cross_entropy", reduction)
    dtype, backend = probabilities.dtype, backend_of(probabilities)
    xp = backend.xp
    weight = check_weight("binary_cross_entropy", weight, probabilities)
    p, t = matched("binary_cross_entropy", probabilities, targets, "probabilities, targets")
    if not backend.runs_cuda and p.size and not ((p.min() >= 0 and p.max() <= 1) or xp.isnan(p).any()):
        raise ValueError(f"binary_cross_entropy: probabilities must be in [0, 1], got {p.min()} ... {p.max()}")
    with quiet(backend):
        lowest = p.dtype.type(_LOWEST_LOG)
        log_yes, log_no = xp.maximum(xp.log(p), lowest), xp.maximum(xp.log1p(-p), lowest)
        losses = -(t * log_yes + (1 - t) * log_no)

    def dprobabilities() -> Array:
        return (p - t) / xp.maximum(p * (1 - p), p.dtype.type(_SMALLEST_VARIANCE))

    slopes = (dprobabilities, lambda: log_no - log_yes)
    return reduce_losses("binary_cross_entropy", backend, losses, reduction, dtype, slopes, weight=weight)


class BCEWithLogitsLoss(Loss):
    """Binary cross entropy from logits; see :func:`binary_cross_entropy_with_logits`."""

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight = constant(weight)
        self.pos_weight = constant(pos_weight)

    def forward(self, logits: Any, targets: Any) -> Tensor:
        return binary_cross_entropy_with_logits(logits, targets, self.weight, self.pos_weight, reduction=self.reduction)


class BCELoss(Loss):
    """Binary cross entropy from probabilities; see :func:`binary_cross_entropy`."""

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = constant(weight)

    def forward(self, probabilities: Any, targets: Any) -> Tensor:
        return binary_cross_entropy(probabilities, targets, self.weight, reduction=self.reduction)
