"""What :func:`fit` calls between epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..backend import Array
from ..layers import Module
from .history import History
from .optimizer import Optimizer


@dataclass
class TrainingState:
    """Where training stands, for callbacks.

    Attributes:
        model: in evaluation mode while callbacks run. optimizer: its ``lr`` may be set where no schedule does.
        history: the last entry is the epoch that has just ended.
        step: updates so far, of all epochs.
    """

    model: Module
    optimizer: Optimizer
    history: History
    step: int = 0

    def figure(self, caller: str, name: str) -> float:
        """A figure of the epoch that has just ended; raises KeyError with those that there are."""
        if name not in self.history.last:
            raise KeyError(
                f"{caller}: monitor must be one of {', '.join(self.history.last)}, got {name!r}"
                + ("; give validation data to fit" if name.startswith("validation") else "")
            )
        return self.history.last[name]


def check_monitor(owner: str, monitor: Any) -> None:
    """Raise unless this is the name of a figure."""
    if not isinstance(monitor, str):
        raise TypeError(f"{owner}: monitor must be the name of a figure, such as 'validation_loss', got {monitor!r}")


class Callback:
    """The base of what may be given as ``fit(…, callbacks=[…])``; a function of the state will do in its place.

    A function is called where :meth:`on_epoch_end` is.
    """

    def on_epoch_end(self, state: TrainingState) -> bool | None:
        """After each epoch and its validation; True ends the training (the other callbacks are still called)."""
        return None

    def on_end(self, state: TrainingState) -> None:
        """After the last epoch, unless an exception ended the training."""

    def state_dict(self) -> dict[str, Array]:
        """What a checkpoint has to keep, as arrays, so that a resumed run decides as the whole one."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
