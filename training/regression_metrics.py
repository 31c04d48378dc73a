"""How far predicted numbers lie from the true ones."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from .metrics import as_host


def mean_squared_error(predicted: Any, targets: Any) -> float:
    """The mean of (prediction − target)², over all elements, in float64.

    Args:
        predicted, targets: arrays or tensors of one shape, on any device.
    Raises:
        ValueError: shapes differ, or there is nothing in them.
    """
    error, _ = _error("mean_squared_error", predicted, targets)
    return float((error * error).mean())


def mean_absolute_error(predicted: Any, targets: Any) -> float:
    """The mean of ``|prediction − target|``, over all elements, in float64. Arguments as :func:`mean_squared_error`."""
    error, _ = _error("mean_absolute_error", predicted, targets)
    return float(abs(error).mean())


def r2_score(predicted: Any, targets: Any) -> float:
    """1 − Σ (prediction − target)² / Σ (target − mean)²: 1 is perfect, 0 as good as the mean, below 0 worse.

    Of shape ``(N, D)`` it is the mean over the D columns. A column whose targets are all equal gives 1 if it is
    predicted exactly and 0 if not, as in scikit-learn.

    Args:
        predicted, targets: shape ``(N,)`` or ``(N, D)``, N at least 2, on any device.
    """
    error, true = _error("r2_score", predicted, targets)
    if true.ndim not in (1, 2) or len(true) < 2:
        raise ValueError(f"r2_score: shape must be (N,) or (N, D) with N at least 2, got {true.shape}")
    columns, error = true.reshape(len(true), -1), error.reshape(len(true), -1)
    left = (error * error).sum(axis=0)
    total = ((columns - columns.mean(axis=0)) ** 2).sum(axis=0)
    scores = [
        1.0 - a / b if b > 0 else float(a == 0) if a == a else a
        for a, b in zip(left.tolist(), total.tolist(), strict=True)
    ]
    return sum(scores) / len(scores)


def _error(caller: str, predicted: Any, targets: Any) -> tuple[Array, Array]:
    """prediction − target, and the target, in float64 on the host."""
    guess, true = (
        as_host(caller, name, values).astype("float64")
        for name, values in (("predicted", predicted), ("targets", targets))
    )
    if guess.shape != true.shape:
        raise ValueError(f"{caller}: predicted and targets must have one shape, got {guess.shape} and {true.shape}")
    if guess.size == 0:
        raise ValueError(f"{caller}: there must be at least one example, got none")
    return guess - true, true
