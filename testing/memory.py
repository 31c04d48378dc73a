"""What a piece of work asks of the simulated device's memory: allocations, bytes copied to and from it, its peak."""

from __future__ import annotations

import gc
import weakref
from types import TracebackType
from typing import Any

from . import array as device_arrays


class MemoryWatch:
    """Counts while it is entered; exact, because arrays die when nobody refers to them any more.

    The cycle collector, which comes when it likes, is off in between.

    Attributes:
        allocations: arrays that brought memory of their own.
        allocated: their bytes.
        live: bytes that are held now.
        peak: the most that were held at a time.
        to_host, from_host: bytes copied.
    """

    def __init__(self) -> None:
        self.live = 0
        self._known: set[int] = set()
        self.restart()

    def restart(self) -> None:
        """Count from here; what is held stays held."""
        self.allocations = self.allocated = self.to_host = self.from_host = 0
        self.peak = self.live

    def __enter__(self) -> MemoryWatch:
        gc.collect()
        self._collected = gc.isenabled()
        gc.disable()
        device_arrays.watch = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        device_arrays.watch = None
        if self._collected:
            gc.enable()

    def saw(self, values: Any) -> None:
        """An array of the device was made: of new memory, or of memory that is known."""
        while isinstance(values.base, type(values)):
            values = values.base
        place = id(values)
        if place in self._known:
            return
        self._known.add(place)
        weakref.finalize(values, self._gone, place, values.nbytes).atexit = False
        self.allocations += 1
        self.allocated += values.nbytes
        self.live += values.nbytes
        self.peak = max(self.peak, self.live)

    def _gone(self, place: int, nbytes: int) -> None:
        self._known.discard(place)
        self.live -= nbytes
