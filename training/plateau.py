"""Lower the learning rate when a figure has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..backend import Array, backend_for
from ..layers.lengths import length
from ..layers.real import real
from .callbacks import Callback, TrainingState, check_monitor


class ReduceOnPlateau(Callback):
    """A callback for :func:`fit`: multiplies the optimizer's rate by ``factor`` when a figure does not improve.

    Not together with a schedule, which sets the rate of every step.

    Args:
        factor: what the rate is multiplied by, in (0, 1).
        patience: epochs without improvement that are let pass, at least 0: the rate falls after one more.
        monitor: the figure that must fall; ``maximize`` for one that must rise.
        maximize: whether greater is better.
        threshold: the least relative improvement that counts.
        cooldown: epochs after a fall that are not counted.
        min_lr: the rate does not fall below it.
    Raises:
        ValueError: ``factor`` or ``patience`` is out of its range. KeyError: the history has no such figure.
    Source: PyTorch's ``ReduceLROnPlateau``.
    """

    def __init__(
        self,
        factor: float = 0.1,
        patience: int = 10,
        monitor: str = "validation_loss",
        maximize: bool = False,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        owner = "ReduceOnPlateau"
        self.factor = real(owner, "factor", factor)
        if not 0.0 < self.factor < 1.0:
            raise ValueError(f"{owner}: factor must be above 0 and below 1, got {factor}")
        check_monitor(owner, monitor)
        self.patience, self.monitor, self.maximize = length(owner, "patience", patience), monitor, maximize
        self.threshold, self.cooldown = real(owner, "threshold", threshold), length(owner, "cooldown", cooldown)
        self.min_lr = real(owner, "min_lr", min_lr)
        self.best = -math.inf if maximize else math.inf
        self._bad, self._cooling = 0, 0

    def on_epoch_end(self, state: TrainingState) -> None:
        value = state.figure("ReduceOnPlateau", self.monitor)
        if value > self.best * (1.0 + self.threshold) if self.maximize else value < self.best * (1.0 - self.threshold):
            self.best, self._bad = value, 0
        else:
            self._bad += 1
        if self._cooling > 0:
            self._cooling, self._bad = self._cooling - 1, 0
        if self._bad > self.patience:
            state.optimizer.lr = max(state.optimizer.lr * self.factor, min(self.min_lr, state.optimizer.lr))
            self._cooling, self._bad = self.cooldown, 0

    def state_dict(self) -> dict[str, Array]:
        return {"counts": backend_for("cpu").xp.array([self.best, self._bad, self._cooling], "float64")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        best, bad, cooling = state["counts"].tolist()
        self.best, self._bad, self._cooling = best, int(bad), int(cooling)
