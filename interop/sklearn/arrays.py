"""Data between scikit-learn, which has arrays on the host, and modules, which may compute elsewhere."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import _check_sample_weight

from ...autograd import Tensor
from ...backend import Array, backend_for

FLOATS = ["float64", "float32"]  # dtypes in which data stay


def checked_weights(sample_weight: Any, x: Array, by_class: Array | None = None) -> Array | None:
    """A weight for each example, float64, from its own and that of its class; None where all count alike.

    Raises:
        ValueError: weights are negative or not one for each example, or none is above 0.
    """
    if sample_weight is None:
        weights = by_class
    else:
        weights = _check_sample_weight(sample_weight, x, dtype="float64", ensure_non_negative=True)
        weights = weights if by_class is None else weights * by_class
    if weights is not None and not weights.sum() > 0:
        raise ValueError("sample_weight and class_weight must leave at least one weight above 0, got none")
    return weights


def plain_arrays(state: dict[str, Any]) -> dict[str, Array]:
    """Arrays that joblib may have mapped into memory as arrays of the plain type."""
    return {name: host_library().array(value) for name, value in state.items()}


def on_host(array: Any) -> Array:
    return Tensor(array).to_numpy().copy()


def host_library() -> Any:
    return backend_for("cpu").xp
