"""Rows of a table by their numbers, and the derivative, on plain arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, backend_of, common_backend

_LONG_ROW = 512  # values; adding a longer row at a time beats adding single values
_CHUNK = 1 << 16  # single values added at a time: their positions stay in the L2 cache


def embedding(indices: Array, weight: Array) -> Array:
    """``y[...] = weight[indices[...]]``: for each index its row.

    On the CPU an index out of range raises. On a CUDA device that would wait for the indices; there its row is NaN.

    Args:
        indices: integers in ``0 … V - 1``, any shape and any integer dtype.
        weight: shape ``(V, D)``.
    Returns:
        shape ``(*indices.shape, D)``, of the dtype of ``weight``.
    Raises:
        TypeError: the indices are no integers. ValueError: one is out of range (on the CPU), or ``weight`` is not 2-D.
    """
    if indices.dtype.kind not in "iu":
        raise TypeError(f"embedding: indices must be integers, got {indices.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight must have shape (num_embeddings, embedding_dim), got {weight.shape}")
    backend = common_backend(indices, weight)
    if backend.xp is not np:
        xp, last = backend.xp, weight.shape[0] - 1
        inside = (indices >= 0) & (indices <= last)
        return xp.where(inside[..., None], weight[xp.clip(indices, 0, last)], xp.asarray(math.nan, weight.dtype))
    if indices.size:
        lowest, highest = int(indices.min()), int(indices.max())
        if lowest < 0 or highest >= len(weight):
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"embedding: indices must be in 0 … {len(weight) - 1}, got {wrong}")
    y = backend.empty((*indices.shape, weight.shape[1]), weight.dtype, backend.device_of(weight))
    return np.take(weight, indices, axis=0, out=y, mode="clip")  # "raise" would copy through a buffer


def embedding_backward(
    dy: Array, indices: Array, num_embeddings: int, padding_idx: int | None = None, out: Array | None = None
) -> Array:
    """``dweight[v, :] = sum of dy[i, :] over all i with indices[i] = v``; the row ``padding_idx`` gets 0.

    On the CPU each row is added up in the order of the indices, so the result is the same at each call; 16-bit floats
    are added up in float32. On a CUDA device the order is not fixed.

    Args:
        dy: gradient of ``y``, shape ``(*indices.shape, D)``.
        indices: what :func:`embedding` was given.
        num_embeddings: V, the number of rows. padding_idx: a row without gradient, or None.
        out: where to write, shape ``(V, D)``; a new array by default.
    Returns:
        gradient of ``weight``, shape ``(V, D)``.
    """
    backend = backend_of(dy)
    cols = dy.shape[-1]
    half = dy.dtype.itemsize == 2
    dtype: Any = "float32" if half else dy.dtype
    total = out
    if total is None or half or not total.flags.c_contiguous:
        total = backend.empty((num_embeddings, cols), dtype, backend.device_of(dy))
    total[...] = 0
    index = indices.reshape(-1)
    rows = dy.reshape(index.size, cols).astype(dtype, copy=False)
    if backend.xp is np:
        _add_rows(total, index, rows)
    else:
        backend.scatter_add(total, backend.xp.clip(index, 0, num_embeddings - 1), rows)
    if padding_idx is not None:
        total[padding_idx] = 0
    if out is None:
        return total.astype(dy.dtype, copy=False)
    if total is not out:
        out[...] = total
    return out


def _add_rows(total: Any, index: Any, rows: Any) -> None:
    """``total[index[i]] += rows[i]`` for each i in turn; two to five times faster than ``np.add.at`` on whole rows."""
    cols = rows.shape[1]
    if cols >= _LONG_ROW:
        for i, row in zip(index.tolist(), rows, strict=True):
            target = total[i]
            np.add(target, row, target)
        return
    flat, within = total.reshape(-1), np.arange(cols)
    step = max(1, _CHUNK // max(1, cols))
    for start in range(0, index.size, step):
        stop = start + step
        places = index[start:stop, None].astype(np.intp) * cols + within
        np.add.at(flat, places.reshape(-1), rows[start:stop].reshape(-1))
