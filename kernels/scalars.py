"""Numbers that are given to an operation beside its arrays: checked in one place, with one wording."""

from __future__ import annotations

import math
from operator import index
from typing import Any


def real(owner: str, name: str, value: Any) -> float:
    """A number as a Python float; NumPy's scalars and 0-d arrays are taken, NaN is not.

    Raises:
        TypeError: it is no number, such as text or a bool. ValueError: it is NaN.
    """
    if type(value) is float and value == value:  # nearly always
        return value
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}") from None
    if number != number:
        raise ValueError(f"{owner}: {name} must be a number, got {value!r}")
    return number


def not_negative(owner: str, name: str, value: Any) -> float:
    """A finite number that is 0 or more, such as what a norm adds to a variance."""
    number = real(owner, name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{owner}: {name} must be finite and not negative, got {value}")
    return number


def integer(owner: str, name: str, value: Any) -> int:
    """An integer, NumPy's too; a bool is none."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}") from None
