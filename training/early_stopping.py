"""Stop when the validation loss has not improved for a while, and go back to the best state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..backend import Array, backend_for
from ..layers.lengths import length
from .callbacks import Callback, TrainingState, check_monitor


class EarlyStopping(Callback):
    """A callback for :func:`fit`: ends the training ``patience`` epochs after the best one.

    When the training ends, so or after its last epoch, the model gets back the parameters and buffers of its best
    epoch. The optimizer's state stays that of the last.

    Args:
        patience: epochs without a new best that are waited for, at least 1; None waits for ever, so that only the best
            state is kept.
        monitor: which figure of the history must fall; ``maximize`` for one that must rise, such as
            ``"validation_accuracy"``.
        maximize: whether greater is better.
        restore: whether the model goes back to its best epoch.
    Attributes:
        best: the best figure so far. best_epoch: its epoch, counted from 1 over the history.
    Raises:
        ValueError: ``patience`` is below 1. KeyError: the history has no such figure.
    """

    def __init__(
        self,
        patience: int | None = 5,
        monitor: str = "validation_loss",
        maximize: bool = False,
        restore: bool = True,
    ) -> None:
        patience = None if patience is None else length("EarlyStopping", "patience", patience, 1)
        check_monitor("EarlyStopping", monitor)
        self.patience, self.monitor, self.maximize, self.restore = patience, monitor, maximize, restore
        self.best = -math.inf if maximize else math.inf
        self.best_epoch = 0
        self._state: dict[str, Array] = {}

    def on_epoch_end(self, state: TrainingState) -> bool:
        value, epoch = state.figure("EarlyStopping", self.monitor), len(state.history)
        if value > self.best if self.maximize else value < self.best:
            self.best, self.best_epoch = value, epoch
            self._state = state.model.state_dict() if self.restore else {}
        return self.patience is not None and epoch - self.best_epoch >= self.patience

    def on_end(self, state: TrainingState) -> None:
        if self._state:
            state.model.load_state_dict(self._state)

    def state_dict(self) -> dict[str, Array]:
        figures = backend_for("cpu").xp.array([self.best, self.best_epoch], "float64")
        return {"best": figures, **{f"state.{name}": array for name, array in self._state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        best, epoch = state["best"].tolist()
        self.best, self.best_epoch = best, int(epoch)
        start = "state."
        self._state = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
