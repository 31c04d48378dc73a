"""Names of dtypes, bfloat16 among them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np


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
