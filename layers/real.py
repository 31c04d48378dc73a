"""Real numbers given to layers and to training: slopes, rates, factors, shares."""

from __future__ import annotations

from typing import Any


def real(owner: str, name: str, value: Any) -> float:
    """A number as a Python float; NumPy's scalars and 0-d arrays are taken, NaN is not.

    Raises:
        TypeError: it is no number, such as text or a bool. ValueError: it is NaN.
    """
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}") from None
    if number != number:
        raise ValueError(f"{owner}: {name} must be a number, got {value!r}")
    return number
