"""Random words on a CUDA device in one launch; ``backend.random_bits`` uses it. The kernel is in ``random_bits.cu``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..backend import Array, Backend, Device, set_bits_kernel
from ._launch import Plan, blocks, launch

_SOURCE = Path(__file__).with_name("random_bits.cu")
_THREADS = 256
_WORDS = 4  # that a thread writes


def random_bits_kernel(key: int, offset: int, count: int, backend: Backend, device: Device) -> Array:
    """Words ``offset … offset + count`` of a stream, uint32, the same as :func:`lamella.backend.random_bits` gives."""
    words = backend.empty((count,), "uint32", device)
    scalars = (np.uint64(key), np.uint64(offset // 4), np.int32(offset % 4), np.int64(count))
    grid = blocks("random_bits", count, _THREADS * _WORDS)
    plan = Plan("random_bits", (f"WORDS={_WORDS}",), grid, _THREADS, scalars, "four words a thread")
    launch(_SOURCE, plan, backend, words)
    return words


set_bits_kernel(random_bits_kernel)
