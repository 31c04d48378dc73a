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
    """Named float32 numbers on a device: ``scalars = StepScalars(device, "lr", "scale"); scalars["lr"]``.

    Args:
        device: where the numbers are read.
        names: their names, in order.
    """

    __slots__ = ("_views", "values")

    def __init__(self, device: Device, *names: str) -> None:
        if len(set(names)) != len(names):
            raise ValueError(f"StepScalars: names must differ from each other, got {', '.join(names)}")
        backend = backend_named(device.kind)
        self.values: Array = backend.empty((len(names),), "float32", device)
        self.values[...] = 0
        self._views = {name: self.values[i : i + 1].reshape(()) for i, name in enumerate(names)}

    def __getitem__(self, name: str) -> Any:
        """The number as a 0-d array on the device; the same array for ever."""
        return self._views[name]

    def write(self, *values: float) -> None:
        """Set all numbers, in the order of their names; the host does not wait for the device.

        Raises:
            ValueError: not one value for each name.
        """
        if len(values) != len(self._views):
            names = ", ".join(self._views)
            raise ValueError(f"StepScalars: write needs {len(self._views)} values ({names}), got {values}")
        for view, value in zip(self._views.values(), values, strict=True):
            view.fill(value)  # a copy from host memory would first wait for all that the device has been given to do
