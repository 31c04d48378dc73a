"""Stop when the validation loss has not improved for a while, and go back to the best state."""

from __future__ import annotations

import math

from ..backend import Array
from ..layers import Module
from .loop import History


class EarlyStopping:
    """A callback for :func:`fit`: ends the training ``patience`` epochs after the best one.

    When it stops the training, the model gets back the parameters and buffers of its best epoch.

    Args:
        patience: epochs without a new best that are waited for, at least 1.
        monitor: which figure of the history must fall; ``maximize`` for one that must rise, such as
            ``"validation_accuracy"``.
        maximize: whether greater is better.
    Attributes:
        best: the best figure so far. best_epoch: its epoch, counted from 1 over the history.
    Raises:
        ValueError: ``patience`` is below 1. KeyError: the history has no such figure.
    """

    def __init__(self, patience: int = 5, monitor: str = "validation_loss", maximize: bool = False) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience}")
        self.patience, self.monitor, self.maximize = patience, monitor, maximize
        self.best = -math.inf if maximize else math.inf
        self.best_epoch = 0
        self._state: dict[str, Array] = {}

    def __call__(self, model: Module, history: History) -> bool:
        if self.monitor not in history.last:
            raise KeyError(
                f"EarlyStopping: monitor must be one of {', '.join(history.last)}, got {self.monitor!r}"
                + ("; give validation data to fit" if self.monitor.startswith("validation") else "")
            )
        value = history.last[self.monitor]
        if value > self.best if self.maximize else value < self.best:
            self.best, self.best_epoch, self._state = value, len(history), model.state_dict()
        stop = len(history) - self.best_epoch >= self.patience
        if stop and self._state:
            model.load_state_dict(self._state)
        return stop
