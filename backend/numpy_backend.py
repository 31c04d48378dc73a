"""NumPy as a backend: the CPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .base import Array, Backend, MemoryFigures
from .buffers import SMALLEST, BufferPool
from .device import Device
from .threads import get_num_threads, parallel

_DEVICE = Device("cpu")
_LARGE_PRODUCT = 1 << 20  # multiply-adds; below, a product is done before a second thread has woken up


class NumpyBackend(Backend):
    """Arrays in host memory, products by NumPy's BLAS, large results from recycled memory."""

    name = "cpu"
    xp = np
    array_types = (np.ndarray,)

    def __init__(self) -> None:
        self.pool = BufferPool()
        self._ones: dict[Any, Array] = {}

    def devices(self) -> tuple[Device, ...]:
        return (_DEVICE,)

    def device_of(self, array: Array) -> Device:
        return _DEVICE

    def synchronize(self, device: Device) -> None:
        """NumPy has finished when its call returns."""

    def memory(self, device: Device) -> MemoryFigures:
        """Bytes of the pool of large arrays; smaller ones are NumPy's own and not counted."""
        used, reserved = self.pool.figures()
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return MemoryFigures(used, reserved, total)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device = _DEVICE) -> Array:
        return self.pool.empty(shape, dtype)

    def asarray(self, value: Any, like: Array | None = None) -> Array:
        return np.asarray(value)

    def from_numpy(self, array: Any, device: Device = _DEVICE) -> Array:
        return np.array(array)

    def to_numpy(self, array: Array) -> Any:
        return array

    def gemm(self, a: Array, b: Array, out: Array | None = None) -> Array:
        (rows, inner), columns = a.shape, b.shape[1]
        if rows * inner * columns < _LARGE_PRODUCT or get_num_threads() == 1:
            return np.dot(a, b, out) if out is not None else np.dot(a, b)
        if out is None:
            out = self.pool.empty((rows, columns), np.result_type(a, b))
        # The longer side is split, so that each part stays a well-shaped product.
        if rows >= columns:
            parallel(lambda start, stop: np.matmul(a[start:stop], b, out=out[start:stop]), rows, 16)
        else:
            parallel(lambda start, stop: np.matmul(a, b[:, start:stop], out=out[:, start:stop]), columns, 16)
        return out

    def sum_rows(self, a: Array, out: Array | None = None) -> Array:
        rows = a.shape[0]
        if a.dtype.itemsize == 2:
            total = np.add.reduce(a, 0, dtype=np.float32).astype(a.dtype)
            if out is None:
                return total
            out[...] = total
            return out
        ones = self._ones.get(a.dtype)
        if ones is None or ones.size < rows:
            ones = self._ones[a.dtype] = np.ones(rows, a.dtype)
        return ones[:rows].dot(a, out)  # a product with ones is five times faster than a sum over the first axis

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        np.add.at(target, index, values)

    def is_large(self, array: Array) -> bool:
        """Whether results of this size come from recycled memory."""
        return array.nbytes >= SMALLEST
