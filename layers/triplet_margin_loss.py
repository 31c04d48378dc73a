"""The triplet loss: an anchor nearer to its like than to another."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .real import real
from .reduction import Loss, check_reduction, matched, reduce_losses


@op
def triplet_margin_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """``max(0, d(a, positive) - d(a, negative) + margin)`` with ``d(x, y) = |x - y + eps|_p`` along the last axis.

    Args:
        anchor: vectors a, shape ``(N, D)`` or ``(D,)``.
        positive: what should be near, the same shape and dtype.
        negative: what should be far, the same shape and dtype.
        margin: by how much farther.
        p: of the distance: at least 1, or ``math.inf``.
        eps: keeps the distance of equal vectors off 0, where it has no derivative; added to each difference.
        swap: use ``d(positive, negative)`` in place of ``d(a, negative)`` where it is smaller.
        reduction: ``"mean"`` over the triplets, ``"sum"`` or ``"none"``.
    Source: Balntas et al. 2016, "Learning local feature descriptors with triplets and shallow convolutional neural
        networks" (swap).
    """
    check_reduction("triplet_margin_loss", reduction)
    dtype, backend = anchor.dtype, backend_of(anchor)
    xp = backend.xp
    a, near = matched("triplet_margin_loss", anchor, positive, "anchor, positive")
    _, far = matched("triplet_margin_loss", anchor, negative, "anchor, negative")
    if a.ndim not in (1, 2):
        raise ValueError(f"triplet_margin_loss: vectors must have shape (N, D) or (D,), got {a.shape}")
    if not p >= 1:
        raise ValueError(f"triplet_margin_loss: p must be at least 1, got {p}")
    zero = a.dtype.type(0)

    def distance(x: Array, y: Array) -> tuple[Array, Array]:
        """The distance, with its axis kept, and its derivative with respect to x."""
        difference = x - y + eps
        size = xp.abs(difference)
        largest = size.max(axis=-1, keepdims=True) if size.shape[-1] else size.sum(axis=-1, keepdims=True)
        unit = xp.where(largest == 0, a.dtype.type(1), largest)
        ratio = size / unit  # at most 1: no power overflows
        if p == math.inf:
            share = (size == largest).astype(a.dtype)
            return largest, xp.sign(difference) * (share / xp.maximum(share.sum(axis=-1, keepdims=True), 1))
        powered = ratio if p == 1 else ratio * ratio if p == 2 else ratio**p
        length = powered.sum(axis=-1, keepdims=True) ** (1.0 / p)
        if p == 1:
            return length * unit, xp.sign(difference)
        slope = (ratio / xp.where(length == 0, a.dtype.type(1), length)) ** (p - 1)
        return length * unit, xp.sign(difference) * slope

    to_near, slope_near = distance(a, near)
    to_far, slope_far = distance(a, far)
    aside = zero  # how much of the far distance is the swapped one: 0, 1, or a half where they are equal
    slope_swapped: Any = zero
    if swap:
        swapped, slope_swapped = distance(near, far)
        aside = (swapped < to_far) + 0.5 * (swapped == to_far)
        aside = aside.astype(a.dtype)
        to_far = xp.minimum(swapped, to_far)
    missing = to_near - to_far + margin  # (N, 1)
    losses = xp.maximum(missing, zero)[..., 0]
    active = missing >= 0
    slopes = (
        lambda: active * (slope_near - slope_far * (1 - aside)),
        lambda: active * (-slope_near - slope_swapped * aside),
        lambda: active * (slope_far * (1 - aside) + slope_swapped * aside),
    )
    y, gradients = reduce_losses("triplet_margin_loss", backend, losses, reduction, dtype, slopes)

    def of_vectors(gradient: Any) -> Any:  # each loss belongs to whole vectors
        return lambda dy, out: gradient(dy[..., None] if reduction == "none" else dy, out)

    return y, tuple(of_vectors(gradient) for gradient in gradients)


class TripletMarginLoss(Loss):
    """An anchor nearer to its like than to another; see :func:`triplet_margin_loss`."""

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin = real("TripletMarginLoss", "margin", margin)
        self.p = real("TripletMarginLoss", "p", p)
        self.eps = real("TripletMarginLoss", "eps", eps)
        self.swap = swap

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:
        return triplet_margin_loss(anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction)
