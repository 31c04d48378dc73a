"""How exactly float32 products are computed: a choice made in a ``with`` block, never silently."""

from __future__ import annotations

import threading
from types import TracebackType

_CHOICES = ("float32", "tf32", "strict")
_state = threading.local()


class precision:  # a context manager reads as a word
    """Choose the arithmetic of float32 products inside a ``with`` block, for this thread.

    ``"float32"`` is the default: IEEE products, fast algorithms with a stated error bound allowed. ``"tf32"`` permits
    tensor cores to round the factors to 10 bits of mantissa. ``"strict"`` forbids algorithms that trade accuracy for
    speed: on the CPU, Winograd's convolution, whose error is at most 2e-5 of the largest value. What counts is the
    choice in force where an operation runs, so ``backward`` belongs into the block too.

    tf32 is used by the CUDA kernels of convolution and attention; matrix products use it through the cuBLASLt binding
    only, which is not the default yet, so through CuPy they stay IEEE.
    """

    def __init__(self, choice: str) -> None:
        if choice not in _CHOICES:
            raise ValueError(f"precision must be one of {', '.join(map(repr, _CHOICES))}, got {choice!r}")
        self._choice = choice

    def __enter__(self) -> precision:
        # a stack in the thread's own memory: one object may be entered twice, and by two threads
        _state.before = (current_precision(), getattr(_state, "before", None))
        _state.choice = self._choice
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _state.choice, _state.before = _state.before


def current_precision() -> str:
    """The choice in force in this thread."""
    return getattr(_state, "choice", "float32")
