"""The training loop, written once: epochs of batches, a validation after each, a look at the loss from time to time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..autograd import Tensor, no_grad
from ..backend import Generator
from ..layers import Module
from .callbacks import Callback, TrainingState
from .feed import feed
from .history import History
from .losses import EpochLosses
from .metrics import accuracy
from .optimizer import Optimizer
from .plateau import ReduceOnPlateau
from .progress import Progress
from .replay import Snapshot
from .run_file import RunFile
from .step import Step, device_of, moved

Metric = Callable[[Tensor, Tensor], float]
Data = tuple[Any, Any] | Iterable[tuple[Any, Any]] | Callable[[int], Iterable[tuple[Any, Any]]]


def fit(
    model: Module,
    data: Data,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 64,
    validation: Data | None = None,
    metrics: Mapping[str, Metric] | None = None,
    rng: Generator | None = None,
    schedule: Callable[[int], float] | None = None,
    clip_norm: float | None = None,
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] = (),
    history: History | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None,
    resume: bool = False,
    explain: bool = True,
) -> History:
    """Train ``model`` on examples; leaves it in evaluation mode, ready to predict.

    The loss is looked at every 50 steps, so that a GPU is not made to wait at each.

    Args:
        model: maps a batch of ``x`` to what ``loss`` takes.
        data: (x, y), arrays or tensors. Where they lie elsewhere than the model, each batch is moved, which takes
            time: move data that fit into the model's device before. Or an iterable of batches (x, y), walked through
            in each epoch; or a function of the epoch's number, from 1, that gives one, such as a generator function.
        loss: ``loss(model(x), y)`` gives a tensor of one element, a mean over the batch.
        optimizer: made from ``model.parameters()``.
        epochs: passes over the data, those of a resumed run included.
        batch_size: examples in a step; the last batch of an epoch may have fewer. All of them at once is full-batch
            descent. Data that come in batches keep theirs.
        validation: what to judge by after each epoch, as ``data``; not learned from.
        metrics: means over examples by name, judged on the validation data; by default ``accuracy`` where y are
            integers.
        rng: shuffles each epoch; a fresh generator by default. Give one to make runs repeatable.
        schedule: the learning rate of a step, counted from 0 over all epochs of this run: ``schedule(step)``. Groups
            of the optimizer keep the ratios of their rates.
        clip_norm: the greatest norm of the gradient, as in :func:`clip_grad_norm`.
        callbacks: each is called after each epoch, the model in evaluation mode; True ends the training. Functions of
            a :class:`TrainingState`, or :class:`Callback` s such as :class:`EarlyStopping`.
        history: to append to. Ctrl-C is not caught: what was reached then stands in the history that you gave, and the
            checkpoint is the last that was written.
        progress: whether to show how it goes.
        checkpoint: a file that is replaced after each epoch, or after each ``every`` steps.
        every: steps between two checkpoints.
        resume: go on from ``checkpoint``, if there is such a file: the same call, made again, ends bit for bit where
            one without interruption ends. Data that come in batches must come in the same order again.
        explain: whether a loss that is not finite is traced to its layer. This keeps a copy of parameters and of the
            optimizer's state.
    Returns:
        the history, one entry for each epoch.
    Raises:
        FloatingPointError: the loss of a step is NaN or infinite; names epoch and step and, after repeating the steps
            since the last look, the module or parameter in which it arose. Model and optimizer are left as they were
            before that.
        ValueError: ``epochs`` is below 1, there are no examples, or numbers of examples differ.
    """
    source = feed("fit", "data", data, batch_size)
    if epochs < 1:
        raise ValueError(f"fit: epochs must be at least 1, got {epochs}")
    if source.steps == 0:
        raise ValueError("fit: data must hold at least one example, got none")
    if schedule is not None and any(isinstance(callback, ReduceOnPlateau) for callback in callbacks):
        raise ValueError("fit: schedule and ReduceOnPlateau must not both set the learning rate; give one of them")
    rng = Generator() if rng is None else rng
    state = TrainingState(model, optimizer, History() if history is None else history)
    file = RunFile(checkpoint, every, state, rng, callbacks)
    first_epoch, position = 1, 0
    losses = EpochLosses()
    if resume and file.exists():
        first_epoch, position = file.load(losses)
    step = Step(model, loss, optimizer, schedule, clip_norm)
    snapshot = Snapshot(model, optimizer) if explain else None
    bar = Progress(epochs, source.steps, progress, done=state.step)
    try:
        for epoch in range(first_epoch, epochs + 1):
            if file.stopped:
                break
            start = time.perf_counter()
            model.train()
            file.begin(epoch)
            source.start(epoch, rng)
            losses.begin(epoch, position, step, source, snapshot, bar, state.step)
            for batch in source.walk(position):
                losses.add(step(batch, state.step), len(batch[0]))
                state.step += 1
                position += 1
                if every is not None and state.step % every == 0 and file.wanted:
                    losses.look()
                    file.save(position, losses)
            figures = {"loss": losses.mean()}
            position = 0
            model.eval()
            if validation is not None:
                judged = evaluate(model, validation, loss=loss, metrics=metrics, batch_size=batch_size)
                figures.update({f"validation_{name}": number for name, number in judged.items()})
            seconds = time.perf_counter() - start
            state.history.epochs.append({**figures, "seconds": seconds})
            bar.epoch(epoch, figures, seconds)
            answers = [_epoch_end(callback, state) for callback in callbacks]
            file.stopped = any(answers)
            losses = EpochLosses()
            if file.wanted and (every is None or epoch == epochs or file.stopped):
                file.begin(epoch + 1)
                file.save(0, losses)
        for callback in callbacks:
            if isinstance(callback, Callback):
                callback.on_end(state)
    finally:
        bar.close()
        model.eval()
    return state.history


def evaluate(
    model: Module,
    data: Data,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int = 64,
) -> dict[str, float]:
    """Loss and metrics of a model on examples, in evaluation mode, without gradients; the mode is put back.

    Args:
        model, loss, metrics, batch_size: as for :func:`fit`.
        data: as for :func:`fit`; a function is called with 0.
    Returns:
        ``loss`` and each metric, each a mean over the examples: batches count by their size.
    """
    source = feed("evaluate", "data", data, batch_size)
    device, was_training = device_of(model), model.training
    totals: dict[str, float] = {}
    count = 0
    model.eval()
    try:
        source.start(0, None)
        with no_grad():
            for inputs, targets in source.walk():
                if metrics is None:
                    metrics = {"accuracy": accuracy} if targets.dtype.kind in "iu" else {}
                if device is not None:
                    inputs, targets = moved(inputs, device), moved(targets, device)
                outputs = model(inputs)
                judged: dict[str, Callable[[Tensor, Tensor], Any]] = {"loss": loss, **metrics}
                for name, judge in judged.items():
                    totals[name] = totals.get(name, 0.0) + float(judge(outputs, targets)) * len(inputs)
                count += len(inputs)
                source.forget()
    finally:
        model.train(was_training)
    if count == 0:
        raise ValueError("evaluate: data must hold at least one example, got none")
    return {name: total / count for name, total in totals.items()}


def _epoch_end(callback: Any, state: TrainingState) -> bool | None:
    return callback.on_epoch_end(state) if isinstance(callback, Callback) else callback(state)
