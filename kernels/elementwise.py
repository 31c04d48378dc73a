"""Elementwise functions on plain arrays: several cheap passes, each over a chunk that stays in the cache.

An array library makes one pass over main memory for every operation in a formula, and fresh pages for every
temporary; both cost more than the arithmetic. Here a formula is a function that writes in place, and on the CPU it
runs over chunks of recycled memory, on every thread. Elsewhere, and for small arrays, it runs once over the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backend import Array, backend_of, parallel

CHUNK = 1 << 17  # elements: 512 KB in float32; more threads take turns at smaller pieces, fewer fit the L2 cache


def elementwise(
    work: Callable[..., None], *arrays: Array, results: int = 1, scratch: int = 0, quiet: bool = True
) -> list[Array]:
    """New arrays of the shape, dtype and memory layout of the first, filled element by element.

    float16 and bfloat16 are computed in float32 and rounded once.

    Args:
        work: called as ``work(xp, *arrays, *results, *scratch)`` with the array module and pieces of one shape, of any
            number of axes; it fills every result and may use the scratch arrays as it likes. It must compute each
            element from the elements at the same place, and write into nothing else.
        arrays: one or more, of one shape, floating dtype and device.
        results: how many arrays are returned.
        scratch: how many more ``work`` wants to write to.
        quiet: no floating-point warnings; False saves a microsecond where ``work`` causes none.
    """
    first = arrays[0]
    xp = backend_of(first).xp
    dtype = first.dtype
    if dtype.itemsize == 2:
        arrays = tuple(array.astype(xp.float32) for array in arrays)
        first = arrays[0]
    if xp is np and first.size > CHUNK:
        made = _chunked(work, arrays, results, scratch)
    else:
        made = [xp.empty_like(first) for _ in range(results)]
        spare = [xp.empty_like(first) for _ in range(scratch)]
        if quiet:
            with np.errstate(all="ignore"):
                work(xp, *arrays, *made, *spare)
        else:
            work(xp, *arrays, *made, *spare)
    return made if first.dtype == dtype else [array.astype(dtype) for array in made]


def _chunked(work: Callable[..., None], arrays: tuple[Array, ...], results: int, scratch: int) -> list[Array]:
    first = arrays[0]
    backend = backend_of(first)
    axes = sorted(range(first.ndim), key=lambda axis: -first.strides[axis])  # the order of the axes in memory
    lying = [np.ascontiguousarray(array.transpose(axes)) for array in arrays]
    made = [backend.empty(lying[0].shape, first.dtype, backend.device_of(first)) for _ in range(results)]
    over_rows(work, *[array.reshape(-1) for array in (*lying, *made)], scratch=scratch)
    back = sorted(range(first.ndim), key=axes.__getitem__)
    return [array.transpose(back) for array in made]


def over_rows(work: Callable[..., None], *arrays: Array, scratch: int = 0) -> None:
    """``work(xp, *pieces, *scratch)`` over pieces of arrays along axis 0, on every thread of the CPU.

    Args:
        work: writes its results into some of the pieces; rows do not depend on each other.
        arrays: of one length along axis 0.
        scratch: how many more arrays like the first one's piece ``work`` wants to write to.
    """
    first = arrays[0]
    xp = backend_of(first).xp
    if xp is not np or first.size <= CHUNK:
        with np.errstate(all="ignore"):
            work(xp, *arrays, *[xp.empty_like(first) for _ in range(scratch)])
        return
    rows = first.shape[0]
    step = max(1, CHUNK * rows // first.size)

    def part(start: int, stop: int) -> None:
        spare = [np.empty((min(step, stop - start), *first.shape[1:]), first.dtype) for _ in range(scratch)]
        for i in range(start, stop, step):
            j = min(i + step, stop)
            work(np, *[array[i:j] for array in arrays], *[array[: j - i] for array in spare])

    parallel(part, rows, step)
