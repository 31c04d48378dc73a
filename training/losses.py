"""The losses of an epoch: kept on the device, fetched together now and then, and checked."""

from __future__ import annotations

import math
from typing import Any

from ..backend import Array, backend_of
from .progress import Progress
from .replay import Snapshot, explain
from .step import Step

_LOOK_EVERY = 50  # steps between looks at the loss: each look waits for the device
_MAX_KEPT = 1 << 28  # bytes of batches that may be kept for a repetition before there is a look


class EpochLosses:
    """Sum of an epoch's losses; raises when one is not finite.

    Attributes:
        total: sum over the examples that were looked at. examples: their number.
    """

    def __init__(self) -> None:
        self.total, self.examples = 0.0, 0
        self._waiting: list[tuple[Array, int]] = []

    def begin(
        self, epoch: int, position: int, step: Step, feed: Any, snapshot: Snapshot | None, bar: Progress, number: int
    ) -> None:
        """Before the first step of an epoch, or before step ``position`` of one that is resumed.

        Args:
            epoch: counted from 1.
            position: steps of it that are done.
            step, feed, snapshot: what a loss that is not finite is explained with; no snapshot, no explanation.
            bar: told how many steps are done.
            number: steps that are done in all epochs.
        """
        self._epoch, self._looked, self._offset = epoch, position, number - position
        self._step, self._feed, self._snapshot, self._bar = step, feed, snapshot, bar
        if snapshot is not None:
            snapshot.take()

    def add(self, value: Array, examples: int) -> None:
        self._waiting.append((value, examples))
        if len(self._waiting) == _LOOK_EVERY or self._feed.kept_bytes > _MAX_KEPT:
            self.look()

    def mean(self) -> float:
        """The mean over the examples of the epoch."""
        self.look()
        if self.examples == 0:
            raise ValueError("fit: data must hold at least one example, got none")
        return self.total / self.examples

    def look(self) -> None:
        """Fetch and check what is waiting; waits for the device."""
        if not self._waiting:
            return
        backend = backend_of(self._waiting[0][0])
        values = backend.to_numpy(backend.xp.stack([value.reshape(()) for value, _ in self._waiting])).tolist()
        for i, (value, (_, examples)) in enumerate(zip(values, self._waiting, strict=True)):
            if not math.isfinite(value):
                raise FloatingPointError(self._message(value, self._looked + i))
            self.total += value * examples
            self.examples += examples
        self._bar.step(len(self._waiting))
        self._looked += len(self._waiting)
        self._waiting.clear()
        self._feed.forget()
        if self._snapshot is not None:
            self._snapshot.take()

    def _message(self, value: float, position: int) -> str:
        steps = "" if self._feed.steps is None else f" of {self._feed.steps}"
        text = f"fit: the loss must be finite, got {value} in epoch {self._epoch}, step {position + 1}{steps}"
        if self._snapshot is None:
            return f"{text}; look for NaN in the data, or lower the learning rate"
        first, number = self._looked, self._looked + self._offset
        reason = explain(self._step, self._feed, self._snapshot, first, position, number)
        return (
            f"{text}: {reason}. The model is as it was before that; look for NaN in the data, or lower the "
            "learning rate"
        )
