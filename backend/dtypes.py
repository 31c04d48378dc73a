"""Names of dtypes, bfloat16 among them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np


def is_half(dtype: Any) -> bool:
    """Whether a dtype is a 16-bit float: float16, or ml_dtypes' bfloat16, whose kind is "V"."""
    return dtype.itemsize == 2 and dtype.kind in "fV"


def as_dtype(name: Any) -> Any:
    """A NumPy dtype from anything NumPy takes, or from ``"bfloat16"``, which it knows once ml_dtypes is imported.

    Raises:
        TypeError: it names no dtype.
    """
    if isinstance(name, str) and name == "bfloat16":
        import_module("ml_dtypes")
    try:
        return np.dtype(name)
    except TypeError:
        raise TypeError(f"dtype must name a NumPy dtype or 'bfloat16', got {name!r}") from None
