"""The training loop, written once: epochs of batches, a validation after each, a look at the loss from time to time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..autograd import Tensor, no_grad
from ..backend import Generator, as_generator
from ..layers import Module
from ..layers.lengths import length
from .callbacks import Callback, TrainingState
from .data import Augment
from .feed import ArrayFeed, feed
from .history import History
from .losses import EpochLosses
from .metrics import accuracy, scores_fit
from .optimizer import Optimizer, check_limit
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
    augment: Augment | None = None,
    callbacks: Sequence[Callback | Callable[[TrainingState], bool | None]] = (),
    history: History | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None,
    resume: bool = False,
    explain: bool = True,
) -> History:
    """Train ``model`` on examples; leaves it in evaluation mode, ready to predict.

    Every epoch begins with ``model.train()``, which puts all submodules into training mode. To keep one in evaluation
    mode, such as a frozen part with dropout, override ``train`` of the model.

    Arguments are checked before anything is learned: validation data that are arrays by judging their first batch. The
    loss is looked at every 50 steps, so that a GPU is not made to wait at each.

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
            integers, one for each row of scores.
        rng: shuffles each epoch; a fresh generator by default. Give one to make runs repeatable.
        schedule: the learning rate of a step, counted from 0 over all epochs of this run: ``schedule(step)``. Groups
            of the optimizer keep the ratios of their rates.
        clip_norm: the greatest norm of the gradient, as in :func:`clip_grad_norm`.
        augment: changes the x of each batch that is learned from: ``augment(x, rng)`` gives another of that length,
            such as ``lambda x, rng: random_flip(x, rng=rng)``. Its generator belongs to the batch, so an interrupted
            run draws the same again. Not for data that come in batches.
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
        TypeError: an argument is of another kind, such as a seed for ``rng``.
    """
    _check_kinds("fit", model, loss, metrics)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit: optimizer must be an Optimizer, such as Adam(model.parameters()), got {optimizer!r}")
    epochs, rng = length("fit", "epochs", epochs, 1), as_generator("fit", rng)
    every = None if every is None else length("fit", "every", every, 1)
    source = feed("fit", "data", data, batch_size, augment)
    judges = None if validation is None else feed("fit", "validation", validation, batch_size)
    if judges is not None and judges.steps == 0:
        raise ValueError("fit: validation must hold at least one example, got none")
    if schedule is not None and not callable(schedule):
        raise TypeError(f"fit: schedule must be a function of the step, got {schedule!r}; constant(lr) makes one")
    if not isinstance(callbacks, (tuple, list)) or not all(isinstance(c, Callback) or callable(c) for c in callbacks):
        raise TypeError(f"fit: callbacks must be a list of Callbacks and functions, got {callbacks!r}")
    if clip_norm is not None:
        check_limit("fit", "clip_norm", clip_norm)
    if history is not None and not isinstance(history, History):
        raise TypeError(f"fit: history must be a History to append to, got {history!r}")
    if resume and checkpoint is None:
        raise ValueError("fit: resume needs a checkpoint to go on from, got resume=True and no checkpoint")
    own = {id(parameter) for parameter in model.parameters()}
    if own and not any(id(parameter) in own for parameter in optimizer.parameters):
        raise ValueError("fit: optimizer must hold parameters of model, got one made from those of another")
    if source.steps == 0:
        raise ValueError("fit: data must hold at least one example, got none")
    if schedule is not None and any(isinstance(callback, ReduceOnPlateau) for callback in callbacks):
        raise ValueError("fit: schedule and ReduceOnPlateau must not both set the learning rate; give one of them")
    state = TrainingState(model, optimizer, History() if history is None else history)
    file = RunFile(checkpoint, every, state, rng, callbacks)
    if isinstance(judges, ArrayFeed):
        x, y = (array[: judges.size] for array in judges.arrays)
        evaluate(model, (x, y), loss=loss, metrics=metrics, batch_size=judges.size)
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
    """Loss and metrics of a model on examples, in evaluation mode, without gradients; all modes are put back.

    Args:
        model, loss, metrics, batch_size: as for :func:`fit`.
        data: as for :func:`fit`; a function is called with 0.
    Returns:
        ``loss`` and each metric, each a mean over the examples: batches count by their size.
    """
    _check_kinds("evaluate", model, loss, metrics)
    source = feed("evaluate", "data", data, batch_size)
    device, modes = device_of(model), [(module, module.training) for module in model.modules()]
    totals: dict[str, float] = {}
    count = 0
    model.eval()
    try:
        source.start(0, None)
        with no_grad():
            for inputs, targets in source.walk():
                if device is not None:
                    inputs, targets = moved(inputs, device), moved(targets, device)
                outputs = model(inputs)
                if metrics is None:
                    metrics = {"accuracy": accuracy} if _are_classes(outputs, targets) else {}
                judged: dict[str, Callable[[Tensor, Tensor], Any]] = {"loss": loss, **metrics}
                for name, judge in judged.items():
                    value = _one_number(f"evaluate: {name}", judge(outputs, targets))
                    totals[name] = totals.get(name, 0.0) + value * len(inputs)
                count += len(inputs)
                source.forget()
    finally:
        for module, mode in modes:
            module.training = mode
    if count == 0:
        raise ValueError("evaluate: data must hold at least one example, got none")
    return {name: total / count for name, total in totals.items()}


def _check_kinds(caller: str, model: Any, loss: Any, metrics: Any) -> None:
    if not isinstance(model, Module):
        got = getattr(model, "__name__", type(model).__name__)
        raise TypeError(f"{caller}: model must be a Module, got {got}; write its forward in a subclass of Module")
    if not callable(loss):
        raise TypeError(f"{caller}: loss must be a function loss(outputs, y), got {loss!r}")
    if metrics is not None and not (isinstance(metrics, Mapping) and all(map(callable, metrics.values()))):
        raise TypeError(f"{caller}: metrics must be a dict of functions by name, got {metrics!r}")


def _are_classes(outputs: Any, targets: Tensor) -> bool:
    """Whether there is a row of scores for each integer target."""
    return targets.dtype.kind in "iu" and isinstance(outputs, Tensor) and scores_fit(outputs, targets)


def _one_number(what: str, value: Any) -> float:
    if getattr(value, "size", 1) != 1:
        raise ValueError(f"{what} must be one number, got shape {tuple(value.shape)}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number or a tensor of one element, got {type(value).__name__}") from None


def _epoch_end(callback: Any, state: TrainingState) -> bool | None:
    return callback.on_epoch_end(state) if isinstance(callback, Callback) else callback(state)
