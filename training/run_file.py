"""The file in which :func:`fit` keeps a run, so that the same call can go on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..backend import Generator
from .callbacks import Callback, TrainingState
from .checkpoint import writable
from .losses import EpochLosses
from .random_state import generators_of
from .replay import not_finite_parameter
from .resume import load_checkpoint, save_checkpoint


class RunFile:
    """A checkpoint of everything that the rest of a run depends on.

    In the middle of an epoch, what is stored of the shuffling generator is its state before the epoch: its order is
    drawn again, and the steps that are done are left out.

    Args:
        path, every: as for :func:`fit`.
        state: model, optimizer, history and the number of steps; written to by :meth:`load`.
        rng: the generator that shuffles.
        callbacks: those of the class have states.
    Attributes:
        wanted: whether there is a path.
        stopped: whether a callback has ended the run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        every: int | None,
        state: TrainingState,
        rng: Generator,
        callbacks: Iterable[Any],
    ) -> None:
        if path is None and every is not None:
            raise ValueError(f"fit: every needs a checkpoint to write, got every={every} and no checkpoint")
        if path is not None:
            writable("fit", "checkpoint", path)
        if path is not None and any(rng is found for found in generators_of(state.model).values()):
            raise ValueError(
                "fit: rng must be another generator than those of the model's modules where there is a checkpoint; "
                "give rng.split(0)"
            )
        self._path, self._state, self._rng = path, state, rng
        self._callbacks: Sequence[Callback] = [c for c in callbacks if isinstance(c, Callback)]
        self._epoch, self._before = 1, rng.state
        self.wanted, self.stopped = path is not None, False

    def exists(self) -> bool:
        return self._path is not None and Path(self._path).exists()

    def begin(self, epoch: int) -> None:
        """An epoch begins, and its order is not drawn yet."""
        self._epoch, self._before = epoch, self._rng.state

    def save(self, position: int, losses: EpochLosses) -> None:
        """Write the file; ``position`` steps of the epoch are done."""
        if (reason := not_finite_parameter(self._state.model)) is not None:
            raise FloatingPointError(
                f"fit: parameters must be finite when they are saved, {reason} after step {self._state.step}; "
                f"{os.fspath(self._path or '')} is left as it was; lower the learning rate"
            )
        before = Generator(0)
        before.state = self._before
        extra: dict[str, Any] = {
            "epoch": self._epoch,
            "position": position,
            "step": self._state.step,
            "total": losses.total,
            "examples": losses.examples,
            "stopped": self.stopped,
            "history": self._state.history.epochs,
        }
        for i, callback in enumerate(self._callbacks):
            extra |= {f"callbacks.{i}.{name}": array for name, array in callback.state_dict().items()}
        save_checkpoint(
            self._path or "", model=self._state.model, optimizer=self._state.optimizer, rng=before, extra=extra
        )

    def load(self, losses: EpochLosses) -> tuple[int, int]:
        """Read the file; gives the epoch to go on with and the steps of it that are done."""
        state = self._state
        extra = load_checkpoint(self._path or "", model=state.model, optimizer=state.optimizer, rng=self._rng)
        if "position" not in extra:
            raise ValueError(f"fit: checkpoint must be one that fit wrote, got {os.fspath(self._path or '')}")
        state.history.epochs[:] = extra["history"]
        state.step, self.stopped = extra["step"], extra["stopped"]
        losses.total, losses.examples = extra["total"], extra["examples"]
        for i, callback in enumerate(self._callbacks):
            start = f"callbacks.{i}."
            callback.load_state_dict({k.removeprefix(start): v for k, v in extra.items() if k.startswith(start)})
        return extra["epoch"], extra["position"]
