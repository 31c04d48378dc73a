"""Targets that are not numbers but names: class labels, and the signs -1 and 1. Checked here, on every device.

Looking at values would stall a CUDA device. There a wrong label cannot raise: it turns its loss into NaN.
"""

from __future__ import annotations

import math
from typing import Any

from ..backend import Array, Backend
from .reduction import widened

_LARGEST = 2**63 - 1  # of int64


def check_labels(
    function: str, backend: Backend, logits: Array, labels: Array, ignore_index: int | None
) -> tuple[Array, Array | None]:
    """Labels that are safe to index with, and 1 for each that counts, 0 for each that is ignored.

    Args:
        function: the caller, for the message.
        backend: of all arrays.
        logits: of C classes, shape ``(N, C, …)``.
        labels: integers in ``0 … C - 1`` or ``ignore_index``, any shape.
        ignore_index: the label that counts for nothing, or None.
    Returns:
        int64 labels, where 0 stands for an ignored one, and an array of their shape, in the dtype that the loss is
        computed in, or None where all count.
        On CUDA the second is always given, and NaN where a label is out of range.
    Raises:
        TypeError: labels are not integers. ValueError: one is out of range (on the CPU).
    """
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{function}: labels must be integers, got {labels.dtype}")
    xp = backend.xp
    classes = logits.shape[1]
    dtype = xp.dtype("float32") if logits.dtype.itemsize == 2 else logits.dtype
    if labels.dtype == "uint64":  # a number beyond int64 would come out negative, and perhaps be ignored
        labels = xp.minimum(labels, _LARGEST)
    labels = labels.astype("int64", copy=False)
    inside_ignored = ignore_index is not None and 0 <= ignore_index < classes
    largest = classes if backend.runs_cuda or inside_ignored else int(labels.view("uint64").max(initial=0))
    if largest < classes:  # a negative label is a very large one without its sign
        return labels, None
    inside = (labels >= 0) & (labels < classes)
    ignored = xp.zeros(labels.shape, bool) if ignore_index is None else labels == ignore_index
    counts = (~ignored).astype(dtype)
    if backend.runs_cuda:
        counts = xp.where(inside | ignored, counts, dtype.type(math.nan))
    elif not (inside | ignored).all():
        allowed = f"0 ... {classes - 1}" if ignore_index is None else f"0 ... {classes - 1} or {ignore_index}"
        wrong = labels[~(inside | ignored)]
        raise ValueError(f"{function}: labels must be in {allowed}, got {int(wrong[0])}")
    return xp.where(inside & ~ignored, labels, 0), counts


def check_class_weight(function: str, weight: Array | None, logits: Array) -> Array | None:
    """A weight for each class, ready to compute with."""
    if weight is None:
        return None
    shape, dtype = logits.shape[1:2], logits.dtype
    if weight.shape != shape or weight.dtype != dtype:
        raise ValueError(f"{function}: weight must be {dtype} of shape {shape}, got {weight.dtype} of {weight.shape}")
    return widened(weight)


def weigh_labels(
    function: str, backend: Backend, logits: Array, labels: Array, weight: Array | None, ignore_index: int, mean: bool
) -> tuple[Array, Array | None, Array | None, Any]:
    """Labels and how much each of them counts.

    Args:
        weight: of each class, from :func:`check_class_weight`.
        mean: whether a mean will be taken, so that something has to count.
    Returns:
        the labels and counts of :func:`check_labels`; the weight of each label, or None where each is 1; their sum.
    Raises:
        what :func:`check_labels` raises; ValueError: nothing counts towards the mean (on the CPU, or no label at all).
    """
    safe, counts = check_labels(function, backend, logits, labels, ignore_index)
    factor, total = counts, labels.size if counts is None else counts.sum()
    if weight is not None:
        factor = weight[safe] if counts is None else weight[safe] * counts
        total = factor.sum()
    if mean and (not labels.size or (not backend.runs_cuda and total == 0)):
        raise ValueError(
            f"{function}: the mean of no losses is undefined: no label of shape {labels.shape} counts, each is "
            f'{ignore_index} or has weight 0; reduction="sum" gives 0'
        )
    return safe, counts, factor, total


def check_signs(function: str, backend: Backend, targets: Array, dtype: Any) -> Array:
    """Targets -1 and 1 as numbers of ``dtype``; anything else raises on the CPU and is NaN on CUDA."""
    xp = backend.xp
    signs = targets.astype(dtype, copy=False)
    if backend.runs_cuda:
        return xp.where(xp.abs(signs) == 1, signs, xp.asarray(math.nan, dtype))
    wrong = signs[xp.abs(signs) != 1]
    if wrong.size:
        raise ValueError(f"{function}: targets must be -1 or 1, got {wrong[0]}")
    return signs
