"""Per-step scalars: numbers that change from step to step, kept where the arrays are.

A learning rate baked into a kernel argument would be frozen by a captured step, and a host value compared with a
device value would stall the device. So such numbers live in one small device array that is written once a step.
"""

from __future__ import annotations

from typing import Any

from .base import Array
from .device import Device
from .registry import backend_named


class StepScalars:
    """Named numbers on a device: ``scalars = StepScalars(device, "lr", "scale"); scalars["lr"]``.

    Args:
        device: where the numbers are read.
        names: their names, in order.
        dtype: of the numbers; that of the arrays they meet, since a 0-d array takes part in NumPy's promotion.
    """

    __slots__ = ("_backend", "_host", "_views", "values")

    def __init__(self, device: Device, *names: str, dtype: Any = "float32") -> None:
        if len(set(names)) != len(names):
            raise ValueError(f"StepScalars: names must differ from each other, got {', '.join(names)}")
        self._backend = backend_named(device.kind)
        self._host = backend_named("cpu").xp.zeros(len(names), dtype)
        self.values: Array = self._backend.from_numpy(self._host, device) if device.kind != "cpu" else self._host
        self._views = {name: self.values[i : i + 1].reshape(()) for i, name in enumerate(names)}

    def __getitem__(self, name: str) -> Any:
        """The number as a 0-d array on the device; the same array for ever."""
        return self._views[name]

    def write(self, *values: float) -> None:
        """Set all numbers at once, in the order of their names: one small copy, no wait for the device.

        Raises:
            ValueError: not one value for each name.
        """
        if len(values) != len(self._views):
            names = ", ".join(self._views)
            raise ValueError(f"StepScalars: write needs {len(self._views)} values ({names}), got {values}")
        self._host[:] = values
        if self.values is not self._host:
            # not from_numpy, which waits; a copy, because the transfer may still read it when the next step writes
            self.values[:] = self._backend.asarray(self._host.copy(), self.values)
