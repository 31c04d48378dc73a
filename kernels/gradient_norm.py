"""The norm of many arrays together, and their shortening, all on the device; kernels in ``gradient_norm.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of
from ._launch import WIDEST_ACCESS, Plan, aligned, c_type, definition_plan, explained, launch, no_cuda, no_kernel_for

_SOURCE = Path(__file__).with_name("gradient_norm.cu")
_THREADS = 256
_PER_BLOCK = 1 << 13  # elements, at least, so that partial sums are few
_MOST_BLOCKS = 1024  # for one array; a number of its own, not the device's: results are the same on every device
_EPS = 1e-6  # PyTorch's, in the factor's denominator


def gradient_norm(gradients: Sequence[Array]) -> Array:
    """The Euclidean norm of all arrays together, 0-d, float32 or float64, where the first of them lies.

    Waits for nothing, except where arrays lie on several devices. 16-bit floats are summed in float32.

    Args:
        gradients: floating arrays, at least one.
    """
    if backend_of(gradients[0]).runs_cuda and _select_norm(*gradients).kernel:
        return clip_record(gradients, 1.0)[:1].reshape(())
    return norm_definition(gradients)


def clip_record(gradients: Sequence[Array], max_norm: float) -> Array:
    """(‖g‖, min(1, max_norm / (‖g‖ + 1e-6))), shape ``(2,)``, where the first of them lies.

    What :func:`scale_by` and the step kernels take.

    Args:
        gradients: as for :func:`gradient_norm`.
        max_norm: the greatest norm, above 0.
    """
    backend = backend_of(gradients[0])
    plan = _select_norm(*gradients) if backend.runs_cuda else None
    if plan is None or not plan.kernel:
        norm = norm_definition(gradients)
        result = backend.xp.empty_like(norm, shape=(2,))
        result[0] = norm
        result[1] = backend.xp.minimum(max_norm / (norm + _EPS), 1.0)
        return result
    device = backend.device_of(gradients[0])
    plans = [_partial_plan(g.dtype, g.size) for g in gradients]
    partial = backend.empty((sum(one.grid for one in plans),), "float32", device)
    start = 0
    for g, one in zip(gradients, plans, strict=True):
        launch(_SOURCE, one, backend, g, partial[start : start + one.grid])
        start += one.grid
    result = backend.empty((2,), "float32", device)
    scalars = (np.int32(start), np.float32(max_norm))
    launch(_SOURCE, plan._replace(grid=1, scalars=scalars), backend, partial, result)
    return result


def scale_by(g: Array, record: Array) -> None:
    """``g *= record[1]``, in place, rounded once.

    Args:
        g: a contiguous array. record: from :func:`clip_record`; moved, and waited for, where it lies elsewhere.
    """
    backend = backend_of(g)
    if backend.runs_cuda and record.dtype == "float32" and _select_norm(g).kernel:
        plan = _partial_plan(g.dtype, g.size)._replace(kernel="scale")
        launch(_SOURCE, plan, backend, g, beside(record, g))
    else:
        scale_in_place(g, beside(record[1:].reshape(()), g))


def norm_definition(gradients: Sequence[Array]) -> Array:
    """The definition in array operations, on any number of devices."""
    first = gradients[0]
    backend = backend_of(first)
    total: Any = None
    for g in gradients:
        own = backend_of(g)
        row = (g.astype("float32") if g.dtype.itemsize == 2 else g).reshape(1, -1)
        square = beside(own.gemm(row, row.T).reshape(()), first)
        total = square if total is None else total + square
    return backend.asarray(backend.xp.sqrt(total), first)


def beside(number: Array, array: Array) -> Array:
    """A small array where ``array`` lies; waits only if it has to be moved."""
    backend, own = backend_of(number), backend_of(array)
    place = own.device_of(array)
    return number if backend.device_of(number) == place else own.from_numpy(backend.to_numpy(number), place)


def scale_in_place(g: Array, factor: Array) -> None:
    """``g *= factor`` with a 0-d factor of the same or of a longer dtype."""
    if g.dtype.itemsize == 2:
        g[...] = g.astype("float32") * factor
    else:
        backend_of(g).xp.multiply(g, factor, out=g, casting="same_kind")


# -- the choice of a kernel ------------------------------------------------------------------------------------------


@explained("gradient_norm")
def _explain_norm(gradients: Sequence[Array]) -> Plan:
    return _select_norm(*gradients)


def _select_norm(*gradients: Array) -> Plan:
    first = gradients[0]
    backend: Backend = backend_of(first)
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    device = backend.device_of(first)
    for g in gradients:
        if backend_of(g) is not backend or backend.device_of(g) != device:
            return definition_plan("the arrays lie on several devices")
        if c_type(g.dtype) is None:
            return definition_plan(no_kernel_for(g.dtype))
        if not g.size or not g.flags.c_contiguous or not aligned(g):
            return definition_plan("an array is empty, not contiguous, or does not start on a 16-byte boundary")
    return _record_plan(len(gradients), first.dtype)


@explained("clip_record")
def _explain_record(gradients: Sequence[Array], max_norm: float) -> Plan:
    return _select_norm(*gradients)


@explained("scale_by")
def _explain_scale(g: Array, record: Array) -> Plan:
    plan = _select_norm(g)
    return _partial_plan(g.dtype, g.size)._replace(kernel="scale", because="in place") if plan.kernel else plan


@lru_cache(maxsize=256)
def _record_plan(count: int, dtype: np.dtype) -> Plan:
    because = f"partial sums of {count} array{'s' * (count > 1)}, one launch each, then one block adds them up"
    return Plan("clip_factor", _defines(dtype), 1, _THREADS, (), because)


@lru_cache(maxsize=1024)
def _partial_plan(dtype: np.dtype, size: int) -> Plan:
    grid = min(-(-size // _PER_BLOCK), _MOST_BLOCKS)
    return Plan("square_sum", _defines(dtype), grid, _THREADS, (np.int64(size),), "")


def _defines(dtype: np.dtype) -> tuple[str, ...]:
    return (f"DTYPE={c_type(dtype)}", f"VECTOR={WIDEST_ACCESS // dtype.itemsize}")
