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


class _Block(np.ndarray):
    """Memory of the pool. Its own class tells an array that was carved from it from a view of such an array."""


def is_view(array: Any) -> bool:
    """Whether keeping an array would keep, or share, more memory than its own.

    An array carved from a block is none, nor is the whole of an array in another shape that nobody else holds.
    """
    base = array.base
    if base is None or type(base) is _Block:
        return False
    whole = type(base) is np.ndarray and base.nbytes == array.nbytes and _is_dense(array)
    alone = _references_to_base(array) == _ONLY_ITS_VIEW + 1  # and the local name
    return not (whole and alone and (base.base is None or type(base.base) is _Block))


def _is_dense(array: Any) -> bool:
    """Whether every place of the memory it spans is one element: contiguous, or with its channels (axis 1) last."""
    if array.flags.c_contiguous:
        return True
    return array.ndim > 2 and bool(array.transpose(0, *range(2, array.ndim), 1).flags.c_contiguous)


def _references_to_base(array: Any) -> int:
    base = array.base
    return sys.getrefcount(base)


_ONLY_ITS_VIEW = _references_to_base(np.empty(2).reshape(1, 2))


class BufferPool:
    """Blocks of memory by size class, each free when nobody but the pool refers to it.

    Args:
        limit: bytes that may be kept free for reuse; beyond it free blocks are given back to the system at the next
            request, which is when the pool looks.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self._blocks: dict[int, list[Any]] = {}
        self._held = 0  # bytes in all blocks, used or free
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
            for i in range(len(blocks)):
                if _is_free(blocks, i):
                    array = _carve(blocks[i], shape, dtype)
                    if self._held > self.limit:
                        self._trim(self.limit)
                    return array
            self._trim(self.limit - size)
            block = _Block(size + _ALIGNMENT, np.uint8)
            blocks.append(block)
            self._held += size
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
                if _is_free(blocks, i):
                    del blocks[i]
                    free -= size
                    self._held -= size

    def _free_bytes(self) -> int:
        return sum(size * _is_free(blocks, i) for size, blocks in self._blocks.items() for i in range(len(blocks)))

    def figures(self) -> tuple[int, int]:
        """Bytes in use and bytes held, used or free."""
        with self._lock:
            return self._held - self._free_bytes(), self._held


def _references(blocks: list[Any], i: int) -> int:
    return sys.getrefcount(blocks[i])


# What getrefcount says of an object that only a list holds: 2, or less where the interpreter borrows (Python 3.14).
# Measured, because a number too high by one would hand out memory that is in use.
_ONLY_THE_POOL = _references([np.empty(0)], 0)


def _is_free(blocks: list[Any], i: int) -> bool:
    return _references(blocks, i) <= _ONLY_THE_POOL


def _size_class(nbytes: int) -> int:
    """The next multiple of an eighth of the power of two below: at most 12.5 % is left unused."""
    step = 1 << (nbytes.bit_length() - 4)
    return (nbytes + step - 1) // step * step


def _carve(block: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    offset = -block.ctypes.data % _ALIGNMENT
    return np.ndarray(shape, dtype, buffer=block, offset=offset)
