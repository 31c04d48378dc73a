"""Where a loss stopped being finite: steps are done again from a copy of everything, and looked at value by value.

Looking costs a wait for the device, so while all is well nobody looks: each fifty steps a copy is made of parameters,
buffers, the optimizer's state and random states. From there a step can be repeated bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from ..autograd import Parameter, Tensor, is_floating, note_write
from ..backend import Array, backend_for, backend_of
from ..layers import Buffer, Module
from .optimizer import Optimizer
from .random_state import generators_of
from .step import Step


class Snapshot:
    """A copy of all that a step reads and changes: ``take()``, and later ``restore()``.

    Args:
        model: its buffers and its modules' generators are copied.
        optimizer: its parameters and state are copied.
    """

    def __init__(self, model: Module, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._generators = list(generators_of(model).values())
        self._buffers = [value for _, value in model._named_state() if isinstance(value, Buffer)]
        self._flat_arrays = [
            array
            for flat in optimizer._flats
            for array in (flat.data, *flat.states.values(), *([] if flat.master is None else [flat.master]))
        ]
        self._copies: list[Array] = []

    def take(self) -> None:
        arrays = [*self._flat_arrays, *(buffer.data for buffer in self._buffers)]
        if self._copies:
            for copy, array in zip(self._copies, arrays, strict=True):
                copy[...] = array
        else:
            self._copies = [array.copy() for array in arrays]
        self._random = [generator.state for generator in self._generators]
        self._steps = [list(flat.flush_steps()) for flat in self._optimizer._flats]
        self._lr = self._optimizer._lr
        self._settings = [group.settings_to_store() for group in self._optimizer.groups]

    def restore(self) -> None:
        for array, copy in zip(
            [*self._flat_arrays, *(buffer.data for buffer in self._buffers)], self._copies, strict=True
        ):
            array[...] = copy
            note_write(array)
        for generator, state in zip(self._generators, self._random, strict=True):
            generator.state = state
        for flat, steps in zip(self._optimizer._flats, self._steps, strict=True):
            flat.restart(steps)
        self._optimizer._lr = self._lr
        for group, settings in zip(self._optimizer.groups, self._settings, strict=True):
            group.restore(settings)
        self._optimizer.zero_grad()


def explain(step: Step, feed: Any, snapshot: Snapshot, first: int, last: int, number: int) -> str:
    """Repeat steps ``first … last`` of the epoch and name the first value that is not finite.

    The model and the optimizer are left as they were before the step in which it arose.

    Args:
        step, feed: what was done, and where its batches are.
        snapshot: taken before step ``first``.
        first, last: numbers of steps in the epoch, from 0; the loss of ``last`` was not finite.
        number: that of step ``first`` over all epochs.
    """
    with backend_for("cpu").xp.errstate(all="ignore"):
        snapshot.restore()
        reason = not_finite_parameter(step.model)
        i = first
        while reason is None and i <= last:
            reason = _inspect(step, feed[i], number + i - first, stop=i == last)
            i += reason is None
        if reason is None:
            return "the same step was finite when it was repeated: it depends on more than its random state"
        snapshot.restore()
        for before in range(first, i):
            step(feed[before], number + before - first)
        step.optimizer.zero_grad()
    return reason if i == last else f"{reason} in step {i + 1}"


def _inspect(step: Step, batch: Any, number: int, stop: bool) -> str | None:
    """Do one step and say what in it is first not finite; ``stop`` before its update."""
    for name, part in zip(("x", "y"), batch, strict=True):
        if not _finite(part.data):
            return f"{name} of the batch holds {_count(part.data)}"
    with _watching(step.model) as found:
        value = step.forward(batch, number)
    if found:
        return found[0]
    if not _finite(value.data):
        return "the model's output is finite, and the loss function's value is not"
    if stop:
        return None
    step.backward(value)
    for name, parameter in reversed(list(step.model.named_parameters())):  # the order in which they are reached
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name} holds {_count(parameter.grad)} after a finite loss"
    step.update()
    reason = not_finite_parameter(step.model)
    return None if reason is None else f"{reason} after an update with lr={step.optimizer.lr:g}"


@contextmanager
def _watching(model: Module) -> Iterator[list[str]]:
    """Inside, the first module whose output is not finite is put into the list, in words."""
    found: list[str] = []
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(_look_at, path, found)))
        yield found


def _look_at(path: str, found: list[str], module: Module, inputs: Any, output: Any) -> None:
    bad = None if found else next((array for array in _arrays(output) if not _finite(array)), None)
    if bad is not None:
        place = f"module {path}" if path else "the model"
        clean = "finite" if all(_finite(array) for array in _arrays(inputs)) else "not finite"
        found.append(
            f"the output of {place} ({type(module).__name__}) holds {_count(bad)} from {clean} inputs"
            f"{_greatest(path, module)}"
        )


def _greatest(path: str, module: Module) -> str:
    """The module's own parameter with the greatest value, in words."""
    reach = {
        f"{path}.{name}" if path else name: float(abs(value.to_numpy().astype("float64")).max())
        for name, value in module._members()
        if isinstance(value, Parameter) and value.size
    }
    if not reach:
        return ""
    name = max(reach, key=reach.__getitem__)
    return f"; of its parameters {name} reaches {reach[name]:.3g}"


def not_finite_parameter(model: Module) -> str | None:
    """The first parameter with a value that is not finite, in words; waits for the device."""
    for name, parameter in model.named_parameters():
        if not _finite(parameter.data):
            return f"parameter {name} holds {_count(parameter.data)}"
    return None


def _arrays(value: Any) -> list[Array]:
    if isinstance(value, Tensor):
        return [value.data]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for item in value for array in _arrays(item)] if isinstance(value, (tuple, list)) else []


def _finite(array: Array) -> bool:
    return not is_floating(array.dtype) or bool(backend_of(array).xp.isfinite(_wide(array)).all())


def _count(array: Array) -> str:
    xp, values = backend_of(array).xp, _wide(array)
    nans, infinities = int(xp.isnan(values).sum()), int(xp.isinf(values).sum())
    parts = [f"{n} {word}" for n, word in ((nans, "NaN"), (infinities, "infinite")) if n]
    return f"{' and '.join(parts)} of {array.size} values"


def _wide(array: Array) -> Array:
    return array.astype("float32") if array.dtype.itemsize == 2 else array
