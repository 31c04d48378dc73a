"""Cross entropy of class labels, from logits."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .module import Module
from .reduction import check_reduction


@op
def cross_entropy(logits: Array, labels: Array, reduction: str = "mean", ignore_index: int = -100) -> Any:
    """``-log softmax(logits)[label]``, one fused operation, stable for logits of any size.

    Args:
        logits: scores before softmax, shape ``(N, C)`` or ``(N, C, d1, …)``: classes are axis 1.
        labels: the true classes, integers in ``0 … C - 1`` or ``ignore_index``, shape ``(N,)`` or ``(N, d1, …)``.
        reduction: ``"mean"`` over the labels that count, ``"sum"`` or ``"none"``.
        ignore_index: a label that counts for nothing and has zero gradient.
    Returns:
        a scalar, or losses of the labels' shape.
    Raises:
        ValueError: shapes do not fit, a label is out of range (on the CPU; on CUDA the loss is NaN there, because
            looking would stall the device), or no label counts towards the mean.
        TypeError: labels are not integers, or logits not floating.
    """
    check_reduction("cross_entropy", reduction)
    backend = backend_of(logits)
    xp = backend.xp
    if logits.ndim < 2 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            "cross_entropy: logits must have shape (N, C, ...) and labels (N, ...), "
            f"got {logits.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: labels must be integers, got {labels.dtype}")
    classes = logits.shape[1]
    shape, dtype = logits.shape, logits.dtype
    rows = logits if logits.ndim == 2 else xp.moveaxis(logits, 1, -1).reshape(-1, classes)  # (M, C)
    flat = labels.reshape(-1)
    count, picked, kept = _labels(backend, flat, classes, ignore_index)

    if dtype.itemsize == 2:
        rows = rows.astype("float32")
    shifted = rows - xp.max(rows, axis=1, keepdims=True)
    place = (xp.arange(flat.size), picked)
    scores = shifted[place]
    e = xp.exp(shifted, out=shifted)
    sums = xp.sum(e, axis=1)
    losses = xp.log(sums)
    losses -= scores
    if kept is not None:
        losses *= kept
    if reduction == "none":
        y = losses.reshape(labels.shape)
    elif reduction == "sum":
        y = losses.sum()
    else:
        y = losses.sum() / count

    def backward(dy: Array) -> Any:
        weight = dy.reshape(-1) if reduction == "none" else dy if reduction == "sum" else dy / count
        if kept is not None:
            weight = weight * kept
        dlogits = e * (weight / sums).reshape(-1, 1)
        dlogits[place] -= weight
        if dlogits.dtype != dtype:
            dlogits = dlogits.astype(dtype)
        if len(shape) > 2:
            dlogits = xp.moveaxis(dlogits.reshape(shape[0], *shape[2:], classes), -1, 1)
        return (dlogits,)

    return y.astype(dtype), backward


def _labels(backend: Any, labels: Array, classes: int, ignore_index: int) -> tuple[Any, Array, Array | None]:
    """How many labels count, labels safe to index with, and a 0/1 weight for each (None where all count)."""
    if not backend.runs_cuda:
        ignored = labels == ignore_index
        some = bool(ignored.any())
        counted = labels[~ignored] if some else labels
        if counted.size and (int(counted.min()) < 0 or int(counted.max()) >= classes):
            wrong = int(counted.min()) if int(counted.min()) < 0 else int(counted.max())
            raise ValueError(f"cross_entropy: labels must be in 0 ... {classes - 1} or {ignore_index}, got {wrong}")
        if not some:
            return labels.size or math.nan, labels, None
        return counted.size or math.nan, backend.xp.where(ignored, 0, labels), (~ignored).astype("float32")
    xp = backend.xp  # nothing here may wait for the device
    valid = (labels >= 0) & (labels < classes)
    kept = (labels != ignore_index).astype("float32")
    weight = xp.where(valid | (labels == ignore_index), kept, xp.float32(math.nan))
    return kept.sum(), xp.where(valid, labels, 0), weight


class CrossEntropyLoss(Module):
    """Cross entropy of class labels from logits; see :func:`cross_entropy`."""

    def __init__(self, reduction: str = "mean", ignore_index: int = -100) -> None:
        check_reduction("CrossEntropyLoss", reduction)
        self.reduction = reduction
        self.ignore_index = ignore_index

    def forward(self, logits: Any, labels: Any) -> Tensor:
        return cross_entropy(logits, labels, self.reduction, self.ignore_index)
