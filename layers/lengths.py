"""Lengths given to layers: numbers of features, channels, classes."""

from __future__ import annotations

import operator
from typing import Any


def length(owner: str, name: str, value: Any, smallest: int = 0) -> int:
    """A length as a Python int; NumPy's integers are taken.

    Raises:
        TypeError: it is no integer. ValueError: it is below ``smallest``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}")
    if number < smallest:
        raise ValueError(f"{owner}: {name} must be at least {smallest}, got {value}")
    return number
