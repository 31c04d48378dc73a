"""Large CPU arrays from recycled memory.

Fresh pages cost more than the arithmetic on them above about 1 MB (the kernel zeroes each page at first touch), so
large results are carved from blocks that are used again. Reuse is invisible: every view of a block, and every view of
a view, holds a reference to the block, and a block is taken again only when the pool's own reference is the last one.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

SMALLEST = 1 << 20  # bytes; below, malloc recycles by itself
_ALIGNMENT = 64  # bytes; a cache line, and the widest vector register
_ONLY_THE_POOL = 3  # references: the list, the loop variable, getrefcount's argument


class BufferPool:
    """Blocks of memory by size class, each free when nobody but the pool refers to it.

    Args:
        limit: bytes that may be kept free for reuse; beyond it free blocks are given back to the system.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self._blocks: dict[int, list[Any]] = {}
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised C-contiguous array; small ones come straight from NumPy."""
        dtype = np.dtype(dtype)
        nbytes = dtype.itemsize
        for length in shape:
            nbytes *= length
        if nbytes < SMALLEST:
            return np.empty(shape, dtype)
        size = _size_class(nbytes)
        with self._lock:
            blocks = self._blocks.setdefault(size, [])
            for block in blocks:
                if sys.getrefcount(block) == _ONLY_THE_POOL:
                    return _carve(block, shape, dtype)
            self._trim(self.limit - size)
            block = np.empty(size + _ALIGNMENT, np.uint8)
            blocks.append(block)
            return _carve(block, shape, dtype)

    def trim(self, limit: int = 0) -> None:
        """Give free blocks back to the system until at most ``limit`` bytes of them are kept."""
        with self._lock:
            self._trim(limit)

    def _trim(self, limit: int) -> None:
        free = self._free_bytes()
        for size in sorted(self._blocks, reverse=True):
            blocks = self._blocks[size]
            for i in range(len(blocks) - 1, -1, -1):
                if free <= max(limit, 0):
                    return
                block = blocks[i]
                if sys.getrefcount(block) == _ONLY_THE_POOL:
                    del blocks[i]
                    free -= size

    def _free_bytes(self) -> int:
        free = 0
        for size, blocks in self._blocks.items():
            for block in blocks:
                if sys.getrefcount(block) == _ONLY_THE_POOL:
                    free += size
        return free

    def figures(self) -> tuple[int, int]:
        """Bytes in use and bytes held, used or free."""
        with self._lock:
            held = sum(size * len(blocks) for size, blocks in self._blocks.items())
            return held - self._free_bytes(), held


def _size_class(nbytes: int) -> int:
    """The next multiple of an eighth of the power of two below: at most 12.5 % is left unused."""
    step = 1 << (nbytes.bit_length() - 4)
    return (nbytes + step - 1) // step * step


def _carve(block: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    offset = -block.ctypes.data % _ALIGNMENT
    return np.ndarray(shape, dtype, buffer=block, offset=offset)
