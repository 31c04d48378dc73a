"""The gradient of broadcasting: what was repeated on the way forward is summed on the way back."""

from __future__ import annotations

from ..backend import Array


def unbroadcast(dy: Array, shape: tuple[int, ...], dtype: object) -> Array:
    """Sum ``dy`` over the axes along which an array of ``shape`` was repeated, and give it that array's dtype."""
    if dy.shape != shape:
        extra = dy.ndim - len(shape)
        axes = tuple(range(extra)) + tuple(
            extra + i for i, length in enumerate(shape) if length == 1 and dy.shape[extra + i] != 1
        )
        dy = dy.sum(axis=axes, keepdims=True).reshape(shape)
    return dy if dy.dtype == dtype else dy.astype(dtype)
