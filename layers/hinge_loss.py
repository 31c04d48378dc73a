"""Losses of a margin ``t x`` with targets -1 and 1: hinge, its smooth form, and the hinge of a distance."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .binary_cross_entropy import softplus_of_both_signs
from .labels import check_signs
from .real import real
from .reduction import Loss, check_floating, check_reduction, quiet, reduce_losses, widened


def _with_signs(function: str, x: Array, targets: Array) -> tuple[Array, Array]:
    """Predictions ready to compute with and their targets as numbers of the same dtype."""
    if x.shape != targets.shape:
        raise ValueError(f"{function}: prediction and targets must have one shape, got {x.shape} and {targets.shape}")
    check_floating(function, "prediction", x)
    x = widened(x)
    return x, check_signs(function, backend_of(x), targets, x.dtype)


@op
def hinge_loss(prediction: Array, targets: Array, reduction: str = "mean") -> Any:
    """``max(0, 1 - t x)``, elementwise: nothing to learn from what is right by a margin of 1.

    The derivative at the kink, ``t x = 1``, is 0.

    Args:
        prediction: x, any shape: its sign is the predicted class.
        targets: t, the same shape, each -1 or 1, of any dtype; they get no gradient.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: the shapes differ, or a target is neither -1 nor 1, such as a label 0 (on CUDA its loss is NaN).
    """
    check_reduction("hinge_loss", reduction)
    dtype, backend = prediction.dtype, backend_of(prediction)
    x, t = _with_signs("hinge_loss", prediction, targets)
    margin = 1 - t * x
    losses = backend.xp.maximum(margin, x.dtype.type(0))
    return reduce_losses("hinge_loss", backend, losses, reduction, dtype, (lambda: -t * (margin > 0),))


@op
def soft_margin_loss(prediction: Array, targets: Array, reduction: str = "mean") -> Any:
    """``log(1 + exp(-t x))``, elementwise, without overflow: binary cross entropy for targets -1 and 1.

    Args:
        prediction: x, any shape.
        targets: t, the same shape, each -1 or 1, of any dtype; they get no gradient.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: the shapes differ, or a target is neither -1 nor 1 (on CUDA its loss is NaN).
    """
    check_reduction("soft_margin_loss", reduction)
    dtype, backend = prediction.dtype, backend_of(prediction)
    x, t = _with_signs("soft_margin_loss", prediction, targets)
    xp = backend.xp
    margin = t * x
    with quiet(backend):
        losses = softplus_of_both_signs(backend, margin)[1]

    def slope() -> Array:  # -t σ(-t x)
        e = xp.exp(-xp.abs(margin))
        return -t * xp.where(margin >= 0, e, x.dtype.type(1)) / (1 + e)

    return reduce_losses("soft_margin_loss", backend, losses, reduction, dtype, (slope,))


@op
def hinge_embedding_loss(prediction: Array, targets: Array, margin: float = 1.0, reduction: str = "mean") -> Any:
    """``x`` for targets 1 and ``max(0, margin - x)`` for targets -1, elementwise.

    Args:
        prediction: x, distances of pairs, any shape.
        targets: the same shape: 1 for pairs that belong together, -1 for others, of any dtype; no gradient.
        margin: how far apart others should be.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: the shapes differ, or a target is neither -1 nor 1 (on CUDA its loss is NaN).
    """
    check_reduction("hinge_embedding_loss", reduction)
    dtype, backend = prediction.dtype, backend_of(prediction)
    x, t = _with_signs("hinge_embedding_loss", prediction, targets)
    xp = backend.xp
    together = (1 + t) * 0.5  # 1 or 0
    losses = together * x + (1 - together) * xp.maximum(margin - x, x.dtype.type(0))

    def slope() -> Array:
        return together - (1 - together) * (x <= margin)

    return reduce_losses("hinge_embedding_loss", backend, losses, reduction, dtype, (slope,))


class HingeLoss(Loss):
    """``max(0, 1 - t x)`` for targets -1 and 1; see :func:`hinge_loss`."""

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return hinge_loss(prediction, targets, self.reduction)


class SoftMarginLoss(Loss):
    """``log(1 + exp(-t x))`` for targets -1 and 1; see :func:`soft_margin_loss`."""

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return soft_margin_loss(prediction, targets, self.reduction)


class HingeEmbeddingLoss(Loss):
    """The hinge of a distance, for targets -1 and 1; see :func:`hinge_embedding_loss`."""

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = real("HingeEmbeddingLoss", "margin", margin)

    def forward(self, prediction: Any, targets: Any) -> Tensor:
        return hinge_embedding_loss(prediction, targets, self.margin, self.reduction)
