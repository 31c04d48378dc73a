"""Rows of a table by their numbers, and the derivative, on plain arrays; the CUDA kernels are in ``embedding.cu``."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, fault_kind, fault_record
from ._launch import (
    Plan,
    aligned,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    elements_at_a_time,
    explained,
    launch,
    no_cuda,
    no_kernel_for,
)

_SOURCE = Path(__file__).with_name("embedding.cu")
_THREADS = 256
_SORTED_CHUNK = 64  # sorted indices that a group of threads adds up
_OUTSIDE = "embedding: indices must be in 0 … {last}, got {value}"
_MOST = 2**31 - 1  # indices and rows of the table that the kernels' keys hold
_LONG_ROW = 512  # values; adding a longer row at a time beats adding single values
_CHUNK = 1 << 16  # single values added at a time: their positions stay in the L2 cache


def embedding(indices: Array, weight: Array) -> Array:
    """``y[...] = weight[indices[...]]``: for each index its row.

    On the CPU an index out of range raises. On a CUDA device that would wait for the indices; there its row is NaN, and
    a float32, float16 or bfloat16 ``weight`` has a kernel that notes the index, for the host's next wait to raise.

    Args:
        indices: integers in ``0 … V - 1``, any shape and any integer dtype.
        weight: shape ``(V, D)``.
    Returns:
        shape ``(*indices.shape, D)``, of the dtype of ``weight``.
    Raises:
        TypeError: the indices are no integers. ValueError: one is out of range (on the CPU; on CUDA later), or
            ``weight`` is not 2-D.
    """
    backend = _check("embedding", indices, weight)
    if backend.runs_cuda and (plan := _select_forward(indices, weight)).kernel:
        indices, weight = contiguous(backend, _integers(indices)), contiguous(backend, weight)
        y = backend.empty((*indices.shape, weight.shape[1]), weight.dtype, backend.device_of(weight))
        plan = plan._replace(scalars=(*plan.scalars, fault_kind(_OUTSIDE)))
        launch(_SOURCE, plan, backend, indices, weight, y, fault_record(weight))
        return y
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


def _check(function: str, indices: Array, weight: Array) -> Backend:
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{function}: indices must be integers, got {indices.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"{function}: weight must have shape (num_embeddings, embedding_dim), got {weight.shape}")
    return common_backend(indices, weight)


def embedding_backward(
    dy: Array, indices: Array, num_embeddings: int, padding_idx: int | None = None, out: Array | None = None
) -> Array:
    """``dweight[v, :] = sum of dy[i, :] over all i with indices[i] = v``; the row ``padding_idx`` gets 0.

    Each row is added up in a fixed order, so the result is the same at each call; 16-bit floats are added up in
    float32. Only float64 on a CUDA device has no kernel, and there no fixed order.

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
    if backend.runs_cuda and (plan := _select_backward(dy, indices, num_embeddings, padding_idx, out)).kernel:
        return _backward_by_kernel(plan, backend, dy, indices, num_embeddings, padding_idx, out)
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


def _integers(indices: Array) -> Array:
    """As int32 or int64; what int64 cannot hold becomes negative, and so stays out of range."""
    return indices if indices.dtype.name in ("int32", "int64") else indices.astype("int64")


def _backward_by_kernel(
    plan: Plan, backend: Backend, dy: Array, indices: Array, count: int, padding_idx: int | None, out: Array | None
) -> Array:
    rows, cols = indices.size, dy.shape[-1]
    device = backend.device_of(dy)
    index, dy = contiguous(backend, _integers(indices)), contiguous(backend, dy)
    dweight = out if out is not None and out.flags.c_contiguous else backend.empty((count, cols), dy.dtype, device)
    dweight[...] = 0
    keys = backend.empty((rows,), "int64", device)
    make_keys = plan._replace(
        kernel="embedding_keys", grid=-(-rows // _THREADS), scalars=(np.int64(rows), np.int64(count))
    )
    launch(_SOURCE, make_keys, backend, index, keys)
    keys = backend.xp.sort(keys)  # all differ, so every sort gives this order
    partial = backend.empty((2 * -(-rows // _SORTED_CHUNK), cols), "float32", device)
    padding = -1 if padding_idx is None else padding_idx % count
    width = plan.scalars[-1]
    numbers = (*map(np.int64, (rows, cols, count, padding)), width, np.int32(_SORTED_CHUNK))
    plan = plan._replace(scalars=numbers)
    launch(_SOURCE, plan, backend, keys, dy, dweight, partial)
    if rows > _SORTED_CHUNK:
        launch(_SOURCE, plan._replace(kernel="embedding_joined"), backend, keys, partial, dweight)
    if out is not None and dweight is not out:
        out[...] = dweight
        return out
    return dweight


# -- the choice of a kernel ------------------------------------------------------------------------------------------


@explained("embedding")
def _select_forward(indices: Array, weight: Array) -> Plan:
    return _select("embedding_forward", _check("embedding", indices, weight), indices, weight, weight.shape[0], None)


@explained("embedding_backward")
def _select_backward(
    dy: Array, indices: Array, num_embeddings: int, padding_idx: int | None = None, out: Array | None = None
) -> Plan:
    return _select("embedding_chunks", common_backend(dy, indices), indices, dy, num_embeddings, out)


def _select(kernel: str, backend: Backend, indices: Array, values: Array, count: int, out: Array | None) -> Plan:
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    cols = values.shape[-1]
    if not indices.size or not cols:
        return definition_plan("an array is empty, nothing is launched")
    if max(indices.size, count) > _MOST:
        return definition_plan(f"the kernels hold at most {_MOST} indices and rows")
    wide = aligned(values) and (out is None or aligned(out))
    bytes_of_index = 4 if indices.dtype.name == "int32" else 8
    return _plan(kernel, values.dtype, bytes_of_index, indices.size, cols, count, wide)


@lru_cache(maxsize=1024)
def _plan(kernel: str, dtype: np.dtype, bytes_of_index: int, rows: int, cols: int, count: int, wide: bool) -> Plan:
    ctype = c_type(dtype)
    if ctype is None:
        return definition_plan(no_kernel_for(dtype))
    vector, why = elements_at_a_time(dtype, wide, (cols, "columns"))
    single = f", because {why}" if why else ""
    packs = cols // vector
    width = min(_THREADS, 1 << (packs - 1).bit_length())
    tiles, depth = -(-packs // width), _THREADS // width
    items = rows if kernel == "embedding_forward" else -(-rows // _SORTED_CHUNK)
    defines = (f"INDEX_BYTES={bytes_of_index}", f"DTYPE={ctype}", f"VECTOR={vector}")
    what = "a row copied" if kernel == "embedding_forward" else f"{_SORTED_CHUNK} sorted indices added up"
    because = f"{what} by {width} threads, {vector} element{'s' * (vector > 1)} at a time{single}"
    scalars = (np.int64(rows), np.int64(cols), np.int64(count), np.int32(width))
    return Plan(kernel, defines, blocks(kernel, items, depth) * tiles, _THREADS, scalars, because)
