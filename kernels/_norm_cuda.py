"""The launcher of ``layer_norm.cu``: which kernels run for rows that are normalised, and their launches.

Serves layer norm, RMS norm, their forms with dropout and a residual in front, and group norm of contiguous images,
where a group is a row with a weight for each channel.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend
from ._launch import (
    OWN_SHARED,
    Plan,
    Plans,
    aligned,
    blocks,
    c_type,
    elements_at_a_time,
    launch,
    no_kernel_for,
    stream_place,
)
from .activation import Dropout

_SOURCE = Path(__file__).with_name("layer_norm.cu")
_LONGEST = 2**30  # columns that the kernels' 32-bit column index reaches
# Rows that fit the registers of THREADS threads with PACKS packs each, by elements in a pack. tests/test_compile.py
# compiles every line; none has been tuned on hardware yet.
_FORWARD = {
    1: ((1, 4), (8, 4), (32, 8), (256, 8), (1024, 4)),
    4: ((8, 2), (32, 4), (128, 4), (512, 4), (512, 8)),
    8: ((8, 1), (32, 2), (128, 2), (512, 2), (512, 4)),
}
_BACKWARD = {1: _FORWARD[1], 4: _FORWARD[4][:4], 8: _FORWARD[8][:4]}  # a thread keeps two sums for each of its columns
_SHARED = {1: (512, 4), 4: (512, 2), 8: (512, 2)}
_FORWARD_PIECE = {1: (512, 4), 4: (512, 2), 8: (512, 1)}
_BACKWARD_PIECE = {1: (256, 8), 4: (512, 2), 8: (512, 1)}
_SMALLEST_BLOCK = 128  # threads; kBlock in layer_norm.cu
_ENOUGH_ROWS = 64  # long rows that keep a device busy with one block each
_MULTIPROCESSORS, _THREADS = 132, 1024  # of a large device, and what each of them should have to do
_ROWS_IN_TURN = 4  # a block's sums over rows are written once for so many rows, where there are enough
_WIDTH, _DEPTH = 32, 16  # of norm_backward_columns


class Rows(NamedTuple):
    """What is known of a call before its arrays are touched; a function of it chooses the kernels.

    Attributes:
        dtype: of the elements.
        rows, cols: the shape.
        aligned: every array starts on a 16-byte boundary.
        centred: whether the mean is taken off; not by RMS norm.
        fused: dropout or a residual come in front.
        values: columns that share a weight; 0 where each has its own.
        shared: bytes of shared memory that a block can have.
    """

    dtype: np.dtype[Any]
    rows: int
    cols: int
    aligned: bool
    centred: bool = True
    fused: bool = False
    values: int = 0
    shared: int = 48 << 10


NOTHING_DROPPED = Dropout(0.0, 0, 0)


def dropout_scalars(dropout: Dropout) -> tuple[np.generic, ...]:
    """The kernels' arguments: where the words begin, the smallest one that keeps its element, and the factor."""
    return *stream_place(dropout.key, dropout.offset), np.uint64(dropout.threshold), np.float32(dropout.scale)


def divisor(number: int) -> tuple[np.uint32, np.int32]:
    """Magic and shift with ``(high half of n * magic + n) >> shift == n // number`` for ``0 <= n < 2**31``.

    Source: Granlund and Montgomery 1994, "Division by invariant integers using multiplication", figure 4.1.
    """
    shift = (number - 1).bit_length()
    return np.uint32((((1 << shift) - number) << 32) // number + 1), np.int32(shift)


# -- the choice of kernels -------------------------------------------------------------------------------------------


def why_not(call: Rows) -> str | None:
    """Why there is no kernel for such rows, or None."""
    if c_type(call.dtype) is None:
        return no_kernel_for(call.dtype)
    if call.cols > _LONGEST:
        return f"a row has {call.cols} elements, the kernels index at most {_LONGEST}"
    return None


def _vector(call: Rows) -> tuple[int, str]:
    """Elements to an access, and why it is one if it is."""
    lengths = (call.values, "values of a channel") if call.values else (call.cols, "columns")
    vector, why = elements_at_a_time(call.dtype, call.aligned, lengths)
    return vector, f", single elements because {why}" if why else ""


def _defines(call: Rows, kind: str, vector: int, threads: int, packs: int) -> tuple[str, ...]:
    layout = (f"DTYPE={c_type(call.dtype)}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={packs}")
    return (kind, *layout, f"FUSED={int(call.fused)}")


def _in_registers(ladder: tuple[tuple[int, int], ...], call: Rows, vector: int) -> tuple[int, int] | None:
    for threads, packs in ladder:
        if call.cols // vector <= threads * packs:
            return threads, packs
    return None


@lru_cache(maxsize=4096)
def select_forward(call: Rows) -> Plans:
    """The kernels of a forward pass, without the scalars of dropout, eps and channels."""
    vector, single = _vector(call)
    rows, cols = call.rows, call.cols
    scalars: tuple[np.generic, ...] = (np.int64(rows), np.int32(cols))
    if (found := _in_registers(_FORWARD[vector], call, vector)) is not None:
        threads, packs = found
        per_block = max(1, _SMALLEST_BLOCK // threads)
        name = "norm_forward_registers"
        because = f"a row of {cols} fits the registers of {threads} threads, one read and one write{single}"
        grid = blocks(name, rows, per_block)
        defines = _defines(call, "FORWARD_REGISTERS", vector, threads, packs)
        return Plans((Plan(name, defines, grid, threads * per_block, scalars, because),))
    held = cols * call.dtype.itemsize
    fits = held <= call.shared - OWN_SHARED
    if rows >= _ENOUGH_ROWS and fits:
        threads, packs = _SHARED[vector]
        name = "norm_forward_shared"
        because = f"a row of {cols} fits the shared memory of a block, one read and one write{single}"
        defines = _defines(call, "FORWARD_SHARED", vector, threads, packs)
        return Plans((Plan(name, defines, blocks(name, rows, 1), threads, scalars, because, held),))
    threads, packs = _FORWARD_PIECE[vector]
    width = threads * packs * vector
    pieces = -(-cols // width)
    defines = _defines(call, "FORWARD_SPLIT", vector, threads, packs)
    scalars = (*scalars, np.int32(pieces), np.int32(width))
    grid = blocks("norm_forward_pieces", rows * pieces, 1)
    few = f"{rows} rows are too few for one block each" if fits else "it fits no block's memory"
    because = f"a row of {cols} is cut into {pieces} pieces and read twice, because {few}{single}"
    first = Plan("norm_forward_pieces", defines, grid, threads, scalars, because)
    return Plans((first, first._replace(kernel="norm_forward_apply", because="normalises the pieces")))


@lru_cache(maxsize=4096)
def select_backward(call: Rows) -> Plans:
    """The kernels of a backward pass, without the scalars of dropout; the last adds up dweight and dbias."""
    vector, single = _vector(call)
    rows, cols = call.rows, call.cols
    scalars: tuple[np.generic, ...] = (np.int64(rows), np.int32(cols))
    plans: tuple[Plan, ...]
    if (found := _in_registers(_BACKWARD[vector], call, vector)) is not None:
        threads, packs = found
        per_block = max(1, _SMALLEST_BLOCK // threads)
        groups = -(-rows // per_block)
        most = _MULTIPROCESSORS * _THREADS // (threads * per_block)
        chunks = min(max(groups // _ROWS_IN_TURN, min(groups, _MULTIPROCESSORS)), most)
        defines = _defines(call, "BACKWARD_REGISTERS", vector, threads, packs)
        because = f"a row of {cols} fits the registers of {threads} threads, one read of both{single}"
        plans = (Plan("norm_backward_registers", defines, chunks, threads * per_block, scalars, because),)
    else:
        threads, packs = _BACKWARD_PIECE[vector]
        width = threads * packs * vector
        pieces = -(-cols // width)
        chunks = max(1, min(rows, 2 * _MULTIPROCESSORS // pieces))
        defines = _defines(call, "BACKWARD_SPLIT", vector, threads, packs)
        scalars = (*scalars, np.int32(pieces), np.int32(width))
        because = f"a row of {cols} is cut into {pieces} pieces and read twice{single}"
        grid = blocks("norm_backward_pieces", rows * pieces, 1)
        first = Plan("norm_backward_pieces", defines, grid, threads, scalars, because)
        because = "the gradient of the pieces"
        plans = (first, Plan("norm_backward_apply", defines, chunks * pieces, threads, scalars, because))
    defines = ("COLUMNS", f"DTYPE={c_type(call.dtype)}", f"WIDTH={_WIDTH}", f"DEPTH={_DEPTH}")
    scalars = (np.int32(chunks), np.int32(cols))
    because = f"adds up what {chunks} blocks have of dweight and dbias, always in the same order"
    grid = blocks("norm_backward_columns", cols, _WIDTH)
    return Plans((*plans, Plan("norm_backward_columns", defines, grid, _WIDTH * _DEPTH, scalars, because)))


# -- the launches ----------------------------------------------------------------------------------------------------


def launch_forward(
    backend: Backend,
    call: Rows,
    x: Array,
    y: Array,
    total: Array | None,
    residual: Array | None,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    dropout: Dropout = NOTHING_DROPPED,
    channels: tuple[int, int] = (0, 0),
) -> tuple[Any, Array]:
    """Write ``y`` (and ``total``, the sum in front of the norm, for a fused call); give mean (or None) and rstd.

    Args:
        call: what :func:`select_forward` chooses from.
        channels: groups, and channels in a group, where weights belong to channels; else zeros.
    """
    device = backend.device_of(x)
    rstd = backend.empty((call.rows,), np.float32, device)
    mean = backend.empty((call.rows,), np.float32, device) if call.centred else None
    by_channel = (np.int32(channels[0]), np.int32(channels[1]), *divisor(max(1, call.values)))
    plans = select_forward(call)
    first = plans[0]
    if len(plans) == 1:
        scalars = (*first.scalars, np.float32(eps), *dropout_scalars(dropout), *by_channel)
        plan = first._replace(scalars=scalars)
        launch(_SOURCE, plan, backend, x, residual, weight, bias, total, y, mean, rstd)
        return mean, rstd
    parts = backend.empty((first.grid, 3), np.float32, device)
    plan = first._replace(scalars=(*first.scalars, np.int32(call.centred), *dropout_scalars(dropout)))
    launch(_SOURCE, plan, backend, x, residual, total, parts)
    plan = plans[1]._replace(scalars=(*first.scalars, np.float32(eps), *by_channel))
    z = x if total is None else total
    launch(_SOURCE, plan, backend, z, weight, bias, parts, y, mean, rstd)
    return mean, rstd


def launch_backward(
    backend: Backend,
    call: Rows,
    dy: Array,
    z: Array,
    mean: Array | None,
    rstd: Array,
    weight: Array | None,
    dx: Array | None,
    dsum: Array | None = None,
    dresidual: Array | None = None,
    dropout: Dropout = NOTHING_DROPPED,
    bias: bool = True,
) -> tuple[Array, Array | None]:
    """Write ``dx`` and ``dresidual``; give dweight, and dbias where there is a ``bias``."""
    device = backend.device_of(z)
    *plans, last = select_backward(call)
    chunks = int(last.scalars[0])
    partial = backend.empty((chunks, 2, call.cols), np.float32, device)
    dweight = backend.empty((call.cols,), z.dtype, device)
    dbias = backend.empty((call.cols,), z.dtype, device) if bias else None
    drop = dropout_scalars(dropout)
    if len(plans) == 1:
        plan = plans[0]._replace(scalars=(*plans[0].scalars, *drop))
        launch(_SOURCE, plan, backend, dy, z, weight, mean, rstd, dsum, dx, dresidual, partial)
    else:
        parts = backend.empty((plans[0].grid, 2), np.float32, device)
        launch(_SOURCE, plans[0], backend, dy, z, weight, mean, rstd, parts)
        plan = plans[1]._replace(scalars=(*plans[1].scalars, *drop))
        launch(_SOURCE, plan, backend, dy, z, weight, mean, rstd, parts, dsum, dx, dresidual, partial)
    launch(_SOURCE, last, backend, partial, dweight, dbias)
    return dweight, dbias


def rows_of(backend: Backend, x: Array, *others: Array | None, centred: bool, fused: bool = False) -> Rows:
    """The :class:`Rows` of a call: ``x`` and every other array that is read or written in packs."""
    boundaries = aligned(x, *(a for a in others if a is not None))
    shared = backend.shared_memory(backend.device_of(x))
    cols = x.shape[-1]
    return Rows(x.dtype, x.size // cols, cols, boundaries, centred, fused, shared=shared)
