"""Losses that want one score above another by a margin: of two rankings, and of the true class over the others."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .labels import check_class_weight, check_labels, check_signs
from .lengths import length
from .real import real
from .reduction import Loss, check_floating, check_reduction, constant, matched, reduce_losses, widened


@op
def margin_ranking_loss(
    input1: Array, input2: Array, targets: Array, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """``max(0, -t (x1 - x2) + margin)``, elementwise.

    Args:
        input1: x1, any shape.
        input2: x2, the same shape and dtype.
        targets: t, the same shape: 1 where x1 should rank higher, -1 where x2 should, of any dtype; no gradient.
        margin: by how much.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: the shapes differ, or a target is neither -1 nor 1 (on CUDA its loss is NaN).
    """
    check_reduction("margin_ranking_loss", reduction)
    dtype, backend = input1.dtype, backend_of(input1)
    x1, x2 = matched("margin_ranking_loss", input1, input2, "input1, input2")
    if targets.shape != x1.shape:
        raise ValueError(f"margin_ranking_loss: targets must have the inputs' shape {x1.shape}, got {targets.shape}")
    t = check_signs("margin_ranking_loss", backend, targets, x1.dtype)
    missing = margin - t * (x1 - x2)
    losses = backend.xp.maximum(missing, x1.dtype.type(0))
    slopes = (lambda: -t * (missing >= 0), lambda: t * (missing >= 0))
    return reduce_losses("margin_ranking_loss", backend, losses, reduction, dtype, slopes)


@op
def multi_margin_loss(
    logits: Array,
    labels: Array,
    p: int = 1,
    margin: float = 1.0,
    weight: Array | None = None,
    reduction: str = "mean",
) -> Any:
    """``sum over c ≠ label of weight[label] * max(0, margin - x[label] + x[c])**p / C``.

    Args:
        logits: x, shape ``(N, C)``.
        labels: the true classes, integers in ``0 … C - 1``, shape ``(N,)``.
        p: 1 or 2.
        margin: by how much the true class should be ahead.
        weight: of each class, shape ``(C,)``, the logits' dtype; a constant, it gets no gradient.
        reduction: ``"mean"`` over the rows (whatever the weights), ``"sum"`` or ``"none"``.
    Raises:
        ValueError: shapes do not fit, a label is out of range (on CUDA its loss is NaN), or p is neither 1 nor 2.
    Source: Crammer and Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector machines".
    """
    check_reduction("multi_margin_loss", reduction)
    check_floating("multi_margin_loss", "logits", logits)
    dtype, backend = logits.dtype, backend_of(logits)
    xp = backend.xp
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"multi_margin_loss: logits must have shape (N, C) and labels (N,), got {logits.shape} and {labels.shape}"
        )
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, got {p}")
    classes = logits.shape[1]
    weight = check_class_weight("multi_margin_loss", weight, logits)
    x = widened(logits)
    safe, counts = check_labels("multi_margin_loss", backend, logits, labels, ignore_index=None)
    place = (xp.arange(len(x)), safe)
    missing = margin - x[place][:, None] + x  # (N, C)
    missing[place] = 0
    missing = xp.maximum(missing, x.dtype.type(0))
    factor = xp.full(labels.shape, 1.0 / classes, x.dtype) if weight is None else weight[safe] / classes
    factor = factor if counts is None else factor * counts
    losses = (missing if p == 1 else missing * missing).sum(axis=1) * factor

    def slope() -> Array:
        g = (missing > 0).astype(x.dtype) if p == 1 else 2 * missing
        g[place] = -g.sum(axis=1)
        return g * factor[:, None]

    y, (dx,) = reduce_losses("multi_margin_loss", backend, losses, reduction, dtype, (slope,))
    return y, (lambda dy, out: dx(dy[:, None] if reduction == "none" else dy, out),)


class MarginRankingLoss(Loss):
    """Ranks one input above the other; see :func:`margin_ranking_loss`."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = real("MarginRankingLoss", "margin", margin)

    def forward(self, input1: Any, input2: Any, targets: Any) -> Tensor:
        return margin_ranking_loss(input1, input2, targets, self.margin, self.reduction)


class MultiMarginLoss(Loss):
    """The hinge loss of many classes; see :func:`multi_margin_loss`."""

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.p = length("MultiMarginLoss", "p", p, 1)
        self.margin = real("MultiMarginLoss", "margin", margin)
        self.weight = constant(weight)

    def forward(self, logits: Any, labels: Any) -> Tensor:
        return multi_margin_loss(logits, labels, self.p, self.margin, self.weight, self.reduction)
