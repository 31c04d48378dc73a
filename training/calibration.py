"""Whether a classifier is as often right as it says: calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import is_floating
from ..backend import Array, backend_for
from ..layers.lengths import length
from .metrics import as_host, classes_of


@dataclass(frozen=True)
class Calibration:
    """A reliability curve: for each bin of confidence, how sure predictions were and how many of them were right.

    Attributes:
        confidence: mean confidence in each bin that holds something, float64 ``(B,)``.
        accuracy: share of right answers in it. count: number of examples in it.
        error: the expected calibration error, ``Σ count/N · |accuracy − confidence|``.
    """

    confidence: Array
    accuracy: Array
    count: Array
    error: float


def calibration(probabilities: Any, labels: Any, bins: int = 10) -> Calibration:
    """The reliability curve and the expected calibration error of predicted probabilities.

    Confidence is the greatest probability of an example; bins (i/B, (i + 1)/B] divide 0 … 1 evenly, 0 is in the first.

    Args:
        probabilities: after softmax, shape ``(N, K)``, each in [0, 1]; on any device.
        labels: the true classes, integers, shape ``(N,)``.
        bins: B, at least 1.
    Raises:
        ValueError: values lie outside [0, 1] (logits?), shapes do not fit, or there are no examples.
    Source: Guo et al. 2017, "On calibration of modern neural networks", equations 2 and 3.
    """
    bins = length("calibration", "bins", bins, 1)
    values, true = as_host("calibration", "probabilities", probabilities), as_host("calibration", "labels", labels)
    if not is_floating(values.dtype):
        raise TypeError(f"calibration: probabilities must be floating, got {values.dtype}")
    if values.ndim != 2:
        raise ValueError(f"calibration: probabilities must have shape (N, K), got {values.shape}")
    classes, true = classes_of("calibration", values, true)
    if true.size == 0:
        raise ValueError("calibration: there must be at least one example, got none")
    values = values.astype("float64")
    least, greatest = float(values.min()), float(values.max())
    if not (least >= 0.0 and greatest <= 1.0 + 1e-6):
        raise ValueError(f"calibration: probabilities must be in [0, 1], got {least:g} … {greatest:g}; apply softmax")
    xp = backend_for("cpu").xp
    sure = values.max(axis=1)
    place = xp.clip(xp.ceil(sure * bins).astype("int64") - 1, 0, bins - 1)
    count = xp.bincount(place, minlength=bins)
    there = count > 0
    confidence = xp.bincount(place, sure, bins)[there] / count[there]
    accuracy = xp.bincount(place, (classes == true).astype("float64"), bins)[there] / count[there]
    error = float((count[there] * abs(accuracy - confidence)).sum() / true.size)
    return Calibration(confidence, accuracy, count[there], error)
