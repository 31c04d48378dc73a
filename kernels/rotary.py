"""Rotary position embedding on plain arrays: pairs of elements turned by an angle that grows with the position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, fault_kind, fault_record
from ._launch import (
    FLOATS,
    Plan,
    aligned,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    elements_at_a_time,
    explained,
    is_float,
    launch,
    no_cuda,
    no_kernel_for,
)

_SOURCE = Path(__file__).with_name("rotary.cu")
_THREADS = 256
_OUTSIDE = "rotary: positions must be in 0 … {last}, got {value}"


def rotary_table(dim: int, length: int, theta: float = 10000.0, frequencies: Sequence[float] | None = None) -> Any:
    """Cosines and sines of all angles: float64 on the host, shape ``(length, dim)``; in each row first the cosines.

    The angle of pair ``i`` at position ``p`` is ``p · theta ** (-2 i / dim)``.

    Args:
        dim: how many elements are turned, even.
        length: number of positions.
        theta: the base of the frequencies.
        frequencies: of each pair, in radians a position, ``dim / 2`` numbers; they take the place of ``theta``.
    """
    given: Any = np.power(float(theta), -np.arange(0, dim, 2) / dim) if frequencies is None else frequencies
    angles = np.arange(length)[:, None] * np.asarray(given, np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def rotary(
    x: Array, table: Array, positions: Array | None = None, *, offset: int = 0, interleaved: bool = False,
    inverse: bool = False,
) -> Array:  # fmt: skip
    """``(a, b) -> (a cos - b sin, b cos + a sin)`` for each pair among the first ``dim`` elements; the rest is copied.

    The gradient with respect to ``x`` is the same function of ``dy`` with ``inverse=True``.

    Args:
        x: shape ``(..., T, D)``, floating.
        table: from :func:`rotary_table`, shape ``(length, dim)`` with ``dim <= D``, float32 (float64 where ``x`` is).
        positions: integers in ``0 … length - 1``, shape ``(T,)``, or ``(N, T)`` for an ``x`` whose first axis has
            length N; by default ``offset … offset + T - 1``.
        offset: the position of the first row, where a sequence comes in pieces.
        interleaved: pair ``i`` is elements ``2 i`` and ``2 i + 1``; else ``i`` and ``i + dim / 2`` (GPT-NeoX, Llama).
        inverse: turn back.
    Returns:
        a new C-contiguous array of the shape and dtype of ``x``.
    Raises:
        ValueError: shapes do not fit, or a position is outside the table (on CUDA its row is NaN, and the host raises
            when it next waits). TypeError: ``x`` is not floating, or ``positions`` are no integers.
    Source: Su et al. 2021, "RoFormer", arXiv 2104.09864, equation 34.
    """
    backend = _check(x, table, positions, offset)
    x = contiguous(backend, x)
    plan = _select(x, table, positions, interleaved)
    if not plan.kernel:
        return rotary_definition(x, table, positions, offset=offset, interleaved=interleaved, inverse=inverse)
    table = contiguous(backend, table)
    if positions is not None:
        positions = contiguous(backend, positions.astype("int64", copy=False))
    y = backend.empty(x.shape, x.dtype, backend.device_of(x))
    length = x.shape[-2]
    rows = x.size // x.shape[-1]
    rows_each = rows if positions is None or positions.ndim == 1 else rows // positions.shape[0]
    scalars = (
        np.int64(rows), np.int64(length), np.int64(rows_each), np.int32(x.shape[-1]), np.int32(table.shape[1]),
        np.int64(table.shape[0]), np.int64(offset), np.float32(-1.0 if inverse else 1.0), *plan.scalars,
        fault_kind(_OUTSIDE),
    )  # fmt: skip
    launch(_SOURCE, plan._replace(scalars=scalars), backend, x, table, positions, y, fault_record(x))
    return y


def rotary_definition(
    x: Array, table: Array, positions: Array | None = None, *, offset: int = 0, interleaved: bool = False,
    inverse: bool = False,
) -> Array:  # fmt: skip
    """The definition in array operations, for every dtype and backend; 16-bit floats in float32."""
    backend = backend_of(x)
    xp = backend.xp
    dim, length = table.shape[1], x.shape[-2]
    half = dim // 2
    if positions is None:
        angles = table[offset : offset + length]
    else:
        if backend.xp is np and positions.size:
            lowest, highest = int(positions.min()), int(positions.max())
            if lowest < 0 or highest >= len(table):
                wrong = lowest if lowest < 0 else highest
                raise ValueError(_OUTSIDE.format(last=len(table) - 1, value=wrong))
        angles = table[positions]
        if positions.ndim == 2:
            angles = angles.reshape(positions.shape[0], *(1,) * (x.ndim - 3), length, dim)
    cosine, sine = angles[..., :half], angles[..., half:]
    if inverse:
        sine = -sine
    wide = x.astype("float32") if x.dtype.itemsize == 2 else x
    y = backend.empty(x.shape, wide.dtype, backend.device_of(x))
    if interleaved:
        pair: tuple[Any, Any] = (slice(0, dim, 2), slice(1, dim, 2))
    else:
        pair = (slice(0, half), slice(half, dim))
    a, b = wide[..., pair[0]], wide[..., pair[1]]
    with np.errstate(all="ignore"):
        xp.multiply(a, cosine, out=y[..., pair[0]])
        y[..., pair[0]] -= b * sine
        xp.multiply(b, cosine, out=y[..., pair[1]])
        y[..., pair[1]] += a * sine
    y[..., dim:] = wide[..., dim:]
    return y.astype(x.dtype, copy=False)


def _check(x: Array, table: Array, positions: Array | None, offset: int) -> Backend:
    if not is_float(x.dtype):
        raise TypeError(f"rotary: x must be floating point, one of {', '.join(FLOATS)}, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"rotary: x must have shape (..., T, D), got {x.shape}")
    wanted = "float64" if x.dtype == "float64" else "float32"
    if table.ndim != 2 or table.shape[1] % 2 or not 2 <= table.shape[1] <= x.shape[-1] or table.dtype != wanted:
        raise ValueError(
            f"rotary: table must be {wanted} of shape (length, dim) with an even dim of 2 … {x.shape[-1]}, "
            f"got {table.dtype} of {table.shape}"
        )
    if positions is None:
        if not 0 <= offset <= table.shape[0] - x.shape[-2]:
            raise ValueError(
                f"rotary: positions {offset} … {offset + x.shape[-2] - 1} must be in 0 … {table.shape[0] - 1}, "
                f"got offset={offset}"
            )
        return common_backend(x, table)
    if positions.dtype.kind not in "iu":
        raise TypeError(f"rotary: positions must be integers, got {positions.dtype}")
    if offset:
        raise ValueError(f"rotary: offset must be 0 where positions are given, got {offset}")
    if positions.shape not in (x.shape[-2:-1], (x.shape[0], x.shape[-2])) or (positions.ndim == 2 and x.ndim < 3):
        raise ValueError(f"rotary: positions must have shape (T,) or (N, T) for x of {x.shape}, got {positions.shape}")
    return common_backend(x, table, positions)


# -- the choice of a kernel ------------------------------------------------------------------------------------------


@explained("rotary")
def _explain(
    x: Array, table: Array, positions: Array | None = None, *, offset: int = 0, interleaved: bool = False,
    inverse: bool = False,
) -> Plan:  # fmt: skip
    backend = _check(x, table, positions, offset)
    return _select(contiguous(backend, x), table, positions, interleaved)


def _select(x: Array, table: Array, positions: Array | None, interleaved: bool) -> Plan:
    backend = backend_of(x)
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    if not x.size:
        return definition_plan("the array is empty, nothing is launched")
    return _plan(x.dtype, math.prod(x.shape[:-1]), x.shape[-1], table.shape[1], aligned(x, table), interleaved)


@lru_cache(maxsize=1024)
def _plan(dtype: np.dtype, rows: int, cols: int, dim: int, wide: bool, interleaved: bool) -> Plan:
    ctype = c_type(dtype)
    if ctype is None:
        return definition_plan(no_kernel_for(dtype))
    vector, why = elements_at_a_time(dtype, wide, (cols, "columns"), (dim // 2, "pairs"))
    single = f", because {why}" if why else ""
    units = (dim // 2 + cols - dim) // vector
    width = min(_THREADS, 1 << (units - 1).bit_length())
    grid = blocks("rotary", rows, _THREADS // width) * -(-units // width)
    defines = (f"DTYPE={ctype}", f"VECTOR={vector}", f"INTERLEAVED={int(interleaved)}")
    because = f"one read, one write, {vector} pair{'s' * (vector > 1)} at a time{single}"
    return Plan("rotary", defines, grid, _THREADS, (np.int32(width),), because)
