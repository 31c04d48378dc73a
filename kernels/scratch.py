"""Memory for intermediate values of CPU kernels that work chunk by chunk."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

_KEPT = 1 << 23  # bytes that a thread keeps from one call to the next


class Scratch(threading.local):
    """Scratch memory by name, one for each thread: fresh pages would cost as much as the work on them."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)

    def tidy(self) -> None:
        """Keep little for the next call."""
        if sum(kept.nbytes for kept in self._kept.values()) > _KEPT:
            self._kept.clear()


SCRATCH = Scratch()
