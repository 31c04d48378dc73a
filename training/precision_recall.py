"""Precision, recall and F1: of what was taken for a class, and of what is one, how much is right."""

from __future__ import annotations

from typing import Any

from ..backend import Array, backend_for
from .metrics import flat_classes

_MOST_CLASSES = 10_000_000  # of which each is given a number: 80 MB
_AVERAGES = ("macro", "micro", "weighted", "none")


def precision_score(predicted: Any, labels: Any, average: str = "macro", zero_division: float = 0.0) -> Any:
    """TP / (TP + FP): the share of the examples taken for a class that belong to it.

    These are no means over examples: call them on all predictions, not batch by batch.

    Args:
        predicted: scores ``(N, K)``, or predicted classes ``(N,)``; on any device.
        labels: the true classes, integers, shape ``(N,)``.
        average: ``"macro"``, the mean over the classes that occur, as truth or as prediction; ``"weighted"``, the mean
            by their true numbers; ``"micro"``, of the counts of all classes together, which is the accuracy;
            ``"none"``, one number for each class.
        zero_division: what stands for 0/0, as for a class that was never predicted: 0 or 1.
    Returns:
        a float; for ``"none"`` float64 of shape ``(K,)``, K as in :func:`confusion_matrix`.
    Raises:
        ValueError: ``average`` or ``zero_division`` is none of these, shapes do not fit, or there are no examples.
    """
    right, taken, there = _counts("precision_score", predicted, labels, average, zero_division)
    return _averaged(right, taken, taken, there, average, zero_division)


def recall_score(predicted: Any, labels: Any, average: str = "macro", zero_division: float = 0.0) -> Any:
    """TP / (TP + FN): the share of a class's examples that were found. Arguments as for :func:`precision_score`."""
    right, taken, there = _counts("recall_score", predicted, labels, average, zero_division)
    return _averaged(right, there, taken, there, average, zero_division)


def f1_score(predicted: Any, labels: Any, average: str = "macro", zero_division: float = 0.0) -> Any:
    """2 TP / (2 TP + FP + FN): the harmonic mean of precision and recall. Arguments as for :func:`precision_score`."""
    right, taken, there = _counts("f1_score", predicted, labels, average, zero_division)
    return _averaged(2 * right, taken + there, taken, there, average, zero_division)


def _counts(
    caller: str, predicted: Any, labels: Any, average: str, zero_division: float
) -> tuple[Array, Array, Array]:
    """How often a class was rightly predicted, was predicted, and is true: of each class for ``"none"``, else of each
    that occurs."""
    if average not in _AVERAGES:
        raise ValueError(f"{caller}: average must be one of {', '.join(_AVERAGES)}, got {average!r}")
    if not isinstance(zero_division, (int, float)) or zero_division not in (0, 1):
        raise ValueError(f"{caller}: zero_division must be 0 or 1, got {zero_division!r}")
    xp = backend_for("cpu").xp
    classes, true, count = flat_classes(caller, predicted, labels)
    if true.size == 0:
        raise ValueError(f"{caller}: there must be at least one example, got none")
    if average != "none":
        found, both = xp.unique(xp.concatenate([classes, true]), return_inverse=True)
        (classes, true), count = xp.split(both.reshape(-1), 2), len(found)
    elif count > _MOST_CLASSES:
        raise ValueError(f"{caller}: for average='none' classes must be below {_MOST_CLASSES}, got {count - 1}")
    right, taken, there = (xp.bincount(a, minlength=count) for a in (true[classes == true], classes, true))
    return right, taken, there


def _averaged(right: Array, of: Array, taken: Array, there: Array, average: str, zero_division: float) -> Any:
    xp = backend_for("cpu").xp
    if average == "micro":
        return float(right.sum() / of.sum())
    shares = xp.where(of == 0, float(zero_division), right / xp.maximum(of, 1))
    if average == "none":
        return shares
    if average == "weighted":
        return float((shares * there).sum() / there.sum())
    return float(shares[taken + there > 0].mean())
