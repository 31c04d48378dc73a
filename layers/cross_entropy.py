"""Cross entropy of class labels or class probabilities, from logits."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Tensor, is_recording, is_unit, op
from ..backend import Array, backend_of
from ..kernels.cross_entropy import classes_of_rows, rows_of_classes
from ..kernels.scalars import integer
from .labels import check_class_weight
from .real import real
from .reduction import Loss, check_floating, check_reduction, constant, narrowed, quiet, widened


@op
def cross_entropy(
    logits: Array,
    labels: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Any:
    """``-weight[label] * log softmax(logits)[label]``, one fused operation, stable for logits of any size.

    With class probabilities ``t`` in place of labels it is ``-sum_c weight[c] * t[c] * log softmax(logits)[c]``.
    Smoothing replaces the target distribution ``t`` (1 at the label) by ``(1 - ε) t + ε / C``.

    Args:
        logits: scores before softmax, shape ``(N, C)`` or ``(N, C, d1, …)``: classes are axis 1.
        labels: the true classes, integers in ``0 … C - 1`` or ``ignore_index``, shape ``(N,)`` or ``(N, d1, …)``;
            or the probabilities of all classes, of the shape and dtype of ``logits``.
        weight: of each class, shape ``(C,)``, the logits' dtype; a constant, it gets no gradient.
        ignore_index: a label that counts for nothing and has zero gradient. Probabilities are never ignored.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The mean of labels divides by the sum of the weights of the
            labels that count; the mean of probabilities by their number, whatever the weights (as in PyTorch).
        label_smoothing: ε, in [0, 1].
        z_loss: weight of ``log(sum(exp(logits)))^2``, which is added to each loss and keeps logits near 0.
    Returns:
        a scalar, or losses of shape ``(N,)`` or ``(N, d1, …)``.
    Raises:
        ValueError: shapes do not fit, a label is out of range (on CUDA its loss is NaN, and the error is raised when
            the host next waits for the device), or nothing counts towards the mean (on CUDA the mean is NaN).
        TypeError: labels are neither integers nor of the logits' dtype, or logits are not floating.
    """
    check_reduction("cross_entropy", reduction)
    check_floating("cross_entropy", "logits", logits)
    backend = backend_of(logits)
    shape = logits.shape
    if len(shape) < 2:
        raise ValueError(f"cross_entropy: logits must have shape (N, C, ...), got {shape}")
    weight = check_class_weight("cross_entropy", weight, logits)
    of_labels = labels.dtype.kind in "iub" or labels.shape != shape
    if of_labels:
        if labels.shape != (shape[0], *shape[2:]):
            raise ValueError(
                "cross_entropy: logits must have shape (N, C, ...) and labels (N, ...), or probabilities the logits' "
                f"shape, got {shape} and {labels.shape}"
            )
        if labels.dtype.kind not in "iu":
            raise TypeError(f"cross_entropy: labels must be integers, got {labels.dtype}")
    by_columns = backend.runs_cuda and len(shape) > 2 and logits.flags.c_contiguous  # there is a kernel for that
    rows, owned = (logits, False) if by_columns else rows_of_classes(backend.xp, logits)
    targets = labels
    if not by_columns and len(shape) > 2:
        targets = labels.reshape(-1) if of_labels else rows_of_classes(backend.xp, labels)[0]
    options: dict[str, Any] = {
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
    }
    each = reduction == "none"

    # Formed beside the losses where the real dy can be multiplied in later: in float16 it might underflow before that.
    formed: list[Array] = []
    dlogits = None
    dtype = logits.dtype
    if is_recording() and not (each and backend.runs_cuda) and (dtype.itemsize > 2 or dtype.name != "float16"):
        dlogits = rows if owned else backend.empty(rows.shape, rows.dtype, backend.device_of(rows))
        formed.append(dlogits)
    y = kernels.cross_entropy(rows, targets, weight, **options, dlogits=dlogits)
    if owned and dlogits is not None:
        rows = None  # overwritten

    def to_logits(dy: Array, out: Array | None) -> Array:
        if formed:  # handed over: a second walk forms it anew
            dx = formed.pop()
            if each:
                dx *= dy.reshape(-1, 1)
            elif not is_unit(dy):
                kernels.scale_gradient(dx, dy)
        else:
            again = rows_of_classes(backend.xp, logits)[0] if rows is None else rows
            slope = dy.reshape(-1) if each and not by_columns else dy
            dx = kernels.cross_entropy_backward(slope, again, targets, weight, **options)
        return dx if by_columns else classes_of_rows(backend.xp, dx, shape)

    def to_probabilities(dy: Array, out: Array | None) -> Array:
        """``-(1 - ε) weight[c] * log softmax(x)[c]``."""
        log_p = kernels.log_softmax(logits, 1)
        count = math.prod((shape[0], *shape[2:])) if reduction == "mean" else 1
        slope = widened(dy.reshape(shape[0], 1, *shape[2:]) if each else dy) * ((label_smoothing - 1.0) / count)
        if weight is not None:
            slope = slope * weight.reshape(-1, *(1,) * (len(shape) - 2))
        with quiet(backend):
            return narrowed(backend, widened(log_p) * slope, labels.dtype)

    y = narrowed(backend, y.reshape(shape[0], *shape[2:]) if each else y, dtype)
    return y, (to_logits,) if of_labels else (to_logits, to_probabilities)


class CrossEntropyLoss(Loss):
    """Cross entropy of class labels or probabilities, from logits; see :func:`cross_entropy`.

    Attributes:
        weight: of each class, shape ``(C,)``, or None; moved and stored with the module.
    """

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.weight = constant(weight)
        self.ignore_index = integer("CrossEntropyLoss", "ignore_index", ignore_index)
        self.label_smoothing = real("CrossEntropyLoss", "label_smoothing", label_smoothing)
        self.z_loss = real("CrossEntropyLoss", "z_loss", z_loss)

    def forward(self, logits: Any, labels: Any) -> Tensor:
        return cross_entropy(
            logits,
            labels,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
        )
