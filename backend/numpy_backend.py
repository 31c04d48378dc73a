"""NumPy as a backend: the CPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .base import Array, Backend, MemoryFigures
from .buffers import BufferPool
from .device import Device
from .dtypes import is_half
from .threads import blas_core, parallel

_DEVICE = Device("cpu")
_BLAS_SPLITS = 1 << 18  # multiply-adds; OpenBLAS wakes its own threads from here on, unless it is told not to
_ROWS = 1 << 9  # added up by one product with ones
_WORTH_A_THREAD = 1 << 22  # multiply-adds, about 40 us of work: three times what handing over a part costs


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

    def versions(self) -> dict[str, str]:
        built = np.show_config(mode="dicts") or {}
        blas = built.get("Build Dependencies", {}).get("blas", {})
        name = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
        return {"NumPy": np.__version__, "BLAS": f"{name} for {core}" if (core := blas_core()) else name}

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device = _DEVICE) -> Array:
        return self.pool.empty(shape, dtype)

    def asarray(self, value: Any, like: Array | None = None) -> Array:
        return np.asarray(value)

    def from_numpy(self, array: Any, device: Device = _DEVICE) -> Array:
        return np.array(array)

    def to_numpy(self, array: Array) -> Any:
        return array

    def address(self, array: Array) -> int:
        pointer: int = array.__array_interface__["data"][0]
        return pointer

    def window(self, array: Array, count: int) -> Array:
        return np.lib.stride_tricks.as_strided(array, (count,), (array.itemsize,))

    def gemm(self, a: Array, b: Array, out: Array | None = None) -> Array:
        (rows, inner), columns = a.shape, b.shape[1]
        if is_half(a.dtype) and a.dtype == b.dtype:  # NumPy adds one element at a time; BLAS does not know 16 bits
            wide = self.gemm(a.astype(np.float32), b.astype(np.float32))
            if out is None:
                return wide.astype(a.dtype)
            out[...] = wide
            return out
        work = rows * inner * columns
        if work < _BLAS_SPLITS:
            return np.dot(a, b, out)
        if out is None:
            out = self.pool.empty((rows, columns), np.result_type(a, b))
        # The longer side is split, so that each part stays a well-shaped product.
        long = max(rows, columns)
        grain = -(-long * _WORTH_A_THREAD // work)
        if rows == long:
            parallel(lambda start, stop: np.matmul(a[start:stop], b, out=out[start:stop]), rows, grain)
        else:
            parallel(lambda start, stop: np.matmul(a, b[:, start:stop], out=out[:, start:stop]), columns, grain)
        return out

    def matmul(self, a: Array, b: Array) -> Array:
        if b.ndim > 2 and is_half(dtype := np.result_type(a, b)):
            return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(dtype)
        return super().matmul(a, b)

    def sum_rows(self, a: Array, out: Array | None = None) -> Array:
        if a.dtype.itemsize == 2:
            return super().sum_rows(a, out)
        rows = a.shape[0]
        if rows > _ROWS:  # one long chain of additions loses digits: blocks, and then their sums
            return self.sum_rows(np.array([self.sum_rows(a[i : i + _ROWS]) for i in range(0, rows, _ROWS)]), out)
        ones = self._ones.get(a.dtype)
        if ones is None or ones.size < rows:
            ones = self._ones[a.dtype] = np.ones(rows, a.dtype)
        return ones[:rows].dot(a, out)  # a product with ones is five times faster than a sum over the first axis

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        np.add.at(target, index, values)
