"""Comparison of arrays of any backend, written so that NaN fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import backend_of


def assert_close(actual: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0, name: str = "") -> None:
    """Fail unless ``|actual - expected| <= atol + rtol * |expected|`` holds for every element.

    Infinities agree with themselves; a NaN anywhere, also in ``expected``, is a failure. Shapes must be equal.

    Args:
        actual: what was computed: an array of any backend, a Python number or a nested list.
        expected: what it should be, likewise.
        rtol: allowed error relative to the expected value.
        atol: allowed absolute error.
        name: what is compared, for the message.
    Raises:
        AssertionError: says how many elements differ, which is the worst, and both values there.
    """
    title = f"{name}: " if name else ""
    found, wanted = _on_host(actual), _on_host(expected)
    if found.shape != wanted.shape:
        raise AssertionError(f"{title}shapes must be equal, got {found.shape}, expected {wanted.shape}")
    if found.size == 0:
        return
    with np.errstate(all="ignore"):
        error = np.where(found == wanted, 0, np.abs(found - wanted))
        bound = atol + rtol * np.abs(wanted)
        close = ((error <= bound) & np.isfinite(bound)) | (found == wanted)
        excess = np.where(close, -1.0, np.nan_to_num(error - bound, nan=np.inf))
    if close.all():
        return
    worst = np.unravel_index(int(excess.argmax()), excess.shape)
    index = tuple(map(int, worst))
    raise AssertionError(
        f"{title}{np.count_nonzero(~close)} of {close.size} elements differ by more than atol={atol:g} + rtol={rtol:g} "
        f"* |expected|; the worst is at index {index}: got {found[worst]!r}, expected {wanted[worst]!r}, "
        f"error {error[worst]:.3g}"
    )


def _on_host(value: Any) -> np.ndarray:
    if hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, np.ndarray | np.generic):
        value = backend_of(value).to_numpy(value)
    array = np.asarray(value)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
