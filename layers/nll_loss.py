"""Negative log likelihood of class labels, from log probabilities."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from ..kernels.nll import has_kernel, nll, nll_backward
from ..kernels.scalars import integer
from .labels import check_class_weight, weigh_labels
from .reduction import Loss, check_floating, check_reduction, constant, narrowed, widened


@op
def nll_loss(
    log_probabilities: Array,
    labels: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Any:
    """``-weight[label] * log_probabilities[label]``: what :func:`cross_entropy` does after log-softmax.

    Args:
        log_probabilities: shape ``(N, C)`` or ``(N, C, d1, …)``: classes are axis 1.
        labels: the true classes, integers in ``0 … C - 1`` or ``ignore_index``, shape ``(N,)`` or ``(N, d1, …)``.
        weight: of each class, shape ``(C,)``, the same dtype; a constant, it gets no gradient.
        ignore_index: a label that counts for nothing and has zero gradient.
        reduction: ``"mean"`` (divides by the sum of the weights of the labels that count), ``"sum"`` or ``"none"``.
    Raises:
        ValueError: shapes do not fit, a label is out of range (on CUDA its loss is NaN, and the
            error is raised when the host next waits for the device), or nothing counts towards the mean.
        TypeError: labels are not integers, or log_probabilities not floating.
    """
    check_reduction("nll_loss", reduction)
    check_floating("nll_loss", "log_probabilities", log_probabilities)
    ignore_index = integer("nll_loss", "ignore_index", ignore_index)
    shape, dtype = log_probabilities.shape, log_probabilities.dtype
    if len(shape) < 2 or labels.shape != (shape[0], *shape[2:]):
        raise ValueError(
            f"nll_loss: log_probabilities must have shape (N, C, ...) and labels (N, ...), "
            f"got {shape} and {labels.shape}"
        )
    backend = backend_of(log_probabilities)
    xp = backend.xp
    weight = check_class_weight("nll_loss", weight, log_probabilities)
    if has_kernel(log_probabilities):
        if labels.dtype.kind not in "iu":
            raise TypeError(f"nll_loss: labels must be integers, got {labels.dtype}")
        y, divisor = nll(log_probabilities, labels, weight, ignore_index, reduction)

        def scattered(dy: Array) -> Any:
            return (nll_backward(dy, log_probabilities, labels, weight, divisor, ignore_index),)

        return narrowed(backend, y, dtype), scattered
    mean = reduction == "mean"
    safe, _, factor, total = weigh_labels("nll_loss", backend, log_probabilities, labels, weight, ignore_index, mean)
    factor = xp.ones(labels.shape, "float32") if factor is None else factor
    place = xp.expand_dims(safe, 1)  # (N, 1, d1, …)
    picked = widened(xp.take_along_axis(log_probabilities, place, axis=1)).reshape(labels.shape)
    losses = xp.where(factor == 0, picked.dtype.type(0), picked * -factor)
    y = losses if reduction == "none" else losses.sum() if not mean else losses.sum() / total

    def backward(dy: Array) -> Any:
        dy = widened(dy) if not mean else widened(dy) / total
        chosen = xp.arange(shape[1]).reshape(-1, *(1,) * (len(shape) - 2)) == place  # (N, C, d1, …)
        dx = chosen * xp.expand_dims(factor * -dy, 1)
        return (dx.astype(dtype, copy=False),)

    return narrowed(backend, y, dtype), backward


class NLLLoss(Loss):
    """Negative log likelihood of class labels, from log probabilities; see :func:`nll_loss`."""

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = constant(weight)
        self.ignore_index = integer("NLLLoss", "ignore_index", ignore_index)

    def forward(self, log_probabilities: Any, labels: Any) -> Tensor:
        return nll_loss(
            log_probabilities, labels, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )
