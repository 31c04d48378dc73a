"""The training loop, written once: epochs of batches, a validation after each, a look at the loss from time to time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..autograd import Tensor, no_grad
from ..backend import Array, Device, Generator, backend_for, backend_of
from ..layers import Module
from .data import batches, number_of_batches
from .metrics import accuracy
from .optimizer import Optimizer
from .progress import Progress

_LOOK_EVERY = 50  # steps between looks at the loss: each look waits for the device

Metric = Callable[[Tensor, Tensor], float]


@dataclass
class History:
    """What each epoch brought: ``history["loss"]`` is a list with one number for each epoch.

    Attributes:
        epochs: for each epoch its figures by name: ``loss`` (mean over the training examples as the epoch went),
            ``validation_loss`` and ``validation_<metric>`` where there is validation data, and ``seconds``.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[float]:
        return [epoch[name] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def last(self) -> dict[str, float]:
        """The newest epoch's figures."""
        return self.epochs[-1]


Callback = Callable[[Module, History], bool | None]


def fit(
    model: Module,
    data: tuple[Any, Any],
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 64,
    validation: tuple[Any, Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    rng: Generator | None = None,
    schedule: Callable[[int], float] | None = None,
    callbacks: Sequence[Callback] = (),
    history: History | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` on examples; leaves it in evaluation mode, ready to predict.

    The loss is looked at every 50 steps, so that a GPU is not made to wait at each.

    Args:
        model: maps a batch of ``x`` to what ``loss`` takes.
        data: (x, y), arrays or tensors. Where they lie elsewhere than the model, each batch is moved, which takes
            time: move data that fit into the model's device before.
        loss: ``loss(model(x), y)`` gives a tensor of one element, a mean over the batch.
        optimizer: made from ``model.parameters()``.
        epochs: passes over the data.
        batch_size: examples in a step; the last batch of an epoch may have fewer.
        validation: (x, y) to judge by after each epoch; not learned from.
        metrics: means over examples by name, judged on the validation data; by default ``accuracy`` where y are
            integers.
        rng: shuffles each epoch; a fresh generator by default. Give one to make runs repeatable.
        schedule: the learning rate of a step, counted from 0 over all epochs of this call: ``schedule(step)``.
        callbacks: each is called with (model, history) after each epoch, the model in evaluation mode; True ends the
            training. See :class:`EarlyStopping`.
        history: to append to. Ctrl-C is not caught: what was reached then stands in the history that you gave.
        progress: whether to show how it goes.
    Returns:
        the history, one entry for each epoch.
    Raises:
        FloatingPointError: the loss of a step is NaN or infinite; names epoch and step.
        ValueError: ``epochs`` is below 1, there are no examples, or numbers of examples differ.
    """
    x, y = _pair("fit", "data", data)
    if epochs < 1:
        raise ValueError(f"fit: epochs must be at least 1, got {epochs}")
    steps = number_of_batches(len(x), batch_size)
    if steps == 0:
        raise ValueError("fit: data must hold at least one example, got none")
    history = History() if history is None else history
    rng = Generator() if rng is None else rng
    device = _device_of(model)
    done = 0
    bar = Progress(epochs, steps, progress)
    try:
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            model.train()
            seen = _Losses(epoch, steps, bar)
            for batch in batches(x, y, batch_size=batch_size, rng=rng):
                inputs, targets = (_moved(part, device) for part in batch)
                if schedule is not None:
                    optimizer.lr = schedule(done)
                value = loss(model(inputs), targets)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                seen.add(value.data, len(inputs))
                done += 1
            figures = {"loss": seen.mean()}
            model.eval()
            if validation is not None:
                judged = evaluate(model, validation, loss=loss, metrics=metrics, batch_size=batch_size)
                figures.update({f"validation_{name}": number for name, number in judged.items()})
            seconds = time.perf_counter() - start
            history.epochs.append({**figures, "seconds": seconds})
            bar.epoch(epoch, figures, seconds)
            answers = [callback(model, history) for callback in callbacks]
            if any(answers):
                break
    finally:
        bar.close()
        model.eval()
    return history


def evaluate(
    model: Module,
    data: tuple[Any, Any],
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int = 64,
) -> dict[str, float]:
    """Loss and metrics of a model on examples, in evaluation mode, without gradients; the mode is put back.

    Args:
        model, loss, metrics, batch_size: as for :func:`fit`.
        data: (x, y), arrays or tensors.
    Returns:
        ``loss`` and each metric, each a mean over the examples: batches count by their size.
    """
    x, y = _pair("evaluate", "data", data)
    if len(x) == 0:
        raise ValueError("evaluate: data must hold at least one example, got none")
    if metrics is None:
        metrics = {"accuracy": accuracy} if y.dtype.kind in "iu" else {}
    device, was_training = _device_of(model), model.training
    totals = dict.fromkeys(["loss", *metrics], 0.0)
    model.eval()
    try:
        with no_grad():
            for batch in batches(x, y, batch_size=batch_size):
                inputs, targets = (_moved(part, device) for part in batch)
                outputs = model(inputs)
                totals["loss"] += float(loss(outputs, targets)) * len(inputs)
                for name, metric in metrics.items():
                    totals[name] += float(metric(outputs, targets)) * len(inputs)
    finally:
        model.train(was_training)
    return {name: total / len(x) for name, total in totals.items()}


class _Losses:
    """The losses of an epoch: kept on the device, fetched together now and then, and checked."""

    def __init__(self, epoch: int, steps: int, bar: Progress) -> None:
        self._epoch, self._steps, self._bar = epoch, steps, bar
        self._waiting: list[tuple[Array, int]] = []
        self._fetched, self._examples, self._total = 0, 0, 0.0

    def add(self, value: Array, examples: int) -> None:
        self._waiting.append((value, examples))
        if len(self._waiting) == _LOOK_EVERY:
            self._look()

    def mean(self) -> float:
        """The mean over the examples of the epoch."""
        self._look()
        return self._total / self._examples

    def _look(self) -> None:
        if not self._waiting:
            return
        backend = backend_of(self._waiting[0][0])
        values = backend.to_numpy(backend.xp.stack([value.reshape(()) for value, _ in self._waiting])).tolist()
        for value, (_, examples) in zip(values, self._waiting, strict=True):
            self._fetched += 1
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"fit: the loss must be finite, got {value} in epoch {self._epoch}, step {self._fetched} of "
                    f"{self._steps}; look for NaN in the data, or lower the learning rate"
                )
            self._total += value * examples
            self._examples += examples
        self._bar.step(len(self._waiting))
        self._waiting.clear()


def _pair(caller: str, name: str, data: Any) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"{caller}: {name} must be a pair (x, y), got {type(data).__name__}")
    return data[0], data[1]


def _device_of(model: Module) -> Device | None:
    """Where the model's first parameter lives; None for a model without parameters."""
    return next((parameter.device for parameter in model.parameters()), None)


def _moved(batch: Tensor, device: Device | None) -> Tensor:
    if device is None or batch.device == device:
        return batch
    return Tensor(backend_for(device).from_numpy(batch.to_numpy(), device))
