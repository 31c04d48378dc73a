"""What all optimizers share: flat arrays, parameters without gradients left alone, state to store, clear errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..autograd import Parameter, note_write
from ..backend import Array, backend_for, backend_of, parallel
from .flat import CHUNK, FlatParameters, Run

_GRAIN = 1 << 18  # elements for which waking another thread pays


class Optimizer:
    """Changes parameters by their gradients, in place; the base of :class:`SGD`, :class:`Adam` and of your own.

    Parameters, gradients and state live in flat arrays, one set for each device and dtype, and each parameter's
    ``data`` becomes a view. So move a model to its device first and make its optimizer afterwards. The next backward
    after :meth:`zero_grad` writes into the same gradient arrays: copy a gradient that you want to keep. A parameter
    without a gradient is left alone in that step, and so is its state. float16 and bfloat16 parameters are updated
    through float32 copies.

    A subclass gives the names below and writes :meth:`_numbers` and :meth:`_update`.

    Args:
        parameters: an iterable of Parameters, such as ``model.parameters()``; one that comes twice counts once.
        lr: learning rate, >= 0.
    Attributes:
        parameters: the parameters, in order, each once.
    Raises:
        TypeError: something in ``parameters`` is not a Parameter.
        ValueError: there are none, or a hyper-parameter is out of its range.
    """

    state_names: tuple[str, ...] = ()  # arrays kept between steps, zero at first
    scalar_names: tuple[str, ...] = ()  # numbers computed on the host for each step
    hyperparameters: tuple[str, ...] = ("lr",)  # attributes that are stored with the state

    def __init__(self, parameters: Iterable[Parameter], lr: float) -> None:
        self.lr = lr
        self.parameters = self._distinct(parameters)
        groups: dict[Any, list[int]] = {}
        for i, parameter in enumerate(self.parameters):
            groups.setdefault((parameter.device, parameter.dtype), []).append(i)
        self._groups = tuple(
            FlatParameters([self.parameters[i] for i in indices], indices, self.state_names, self.scalar_names)
            for indices in groups.values()
        )

    @property
    def lr(self) -> float:
        """Learning rate; may be set between steps."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = self._number("lr", value)

    def zero_grad(self) -> None:
        """Forget the gradients: each becomes None."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient, in place."""
        self.advance()
        self.apply()

    def advance(self) -> None:
        """The host's half of a step: count it, and write its numbers to where the parameters are."""
        for group in self._groups:
            for run in group.gather():
                run.steps += 1
                run.scalars.write(*self._numbers(run.steps))

    def apply(self) -> None:
        """The device's half of a step: array operations only, so that a captured step can replay them."""
        for group in self._groups:
            if not group.runs:
                continue
            xp = group.backend.xp
            for run in group.runs:
                if run.master is not None:
                    self._update_half(xp, run)
                elif group.in_chunks:
                    self._update_in_chunks(xp, group, run)
                else:
                    self._update(xp, run.data, run.gradient, run.states, run.scratch, run.numbers)
            note_write(group.data)

    def _numbers(self, steps: int) -> tuple[float, ...]:
        """The values of ``scalar_names`` for parameters in their step ``steps``, counted from 1."""
        raise NotImplementedError(f"{type(self).__name__} has no _numbers method")

    def _update(
        self, xp: Any, p: Array, g: Array, states: tuple[Array, ...], scratch: Array, numbers: tuple[Array, ...]
    ) -> None:
        """Change ``p`` and ``states`` in place; ``g`` is only read, ``scratch`` may hold anything. All are 1-D.

        ``numbers`` are 0-d arrays on the device, in the order of ``scalar_names``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no _update method")

    def _update_in_chunks(self, xp: Any, group: FlatParameters, run: Run) -> None:
        def work(start: int, stop: int) -> None:
            scratch = group.backend.empty((min(CHUNK, stop - start),), group.work_dtype, group.device)
            for first in range(start, stop, CHUNK):
                chunk = slice(first, min(first + CHUNK, stop))
                p, g = run.data[chunk], run.gradient[chunk]
                self._update(xp, p, g, tuple(s[chunk] for s in run.states), scratch[: p.size], run.numbers)

        parallel(work, run.data.size, _GRAIN)

    def _update_half(self, xp: Any, run: Run) -> None:
        """Update the float32 copy and round it; a value written since the last step (a checkpoint) goes first."""
        p: Array = run.master
        xp.copyto(p, run.data.astype(p.dtype), where=p.astype(run.data.dtype) != run.data)
        g = run.gradient.astype(p.dtype)
        self._update(xp, p, g, run.states, xp.empty_like(p), run.numbers)
        run.data[...] = p

    # -- state ----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Array]:
        """Hyper-parameters, step counts and state by name, all as arrays: what :func:`lamella.save` takes.

        Hyper-parameters are float64; ``3.steps`` and ``3.<state>`` belong to the parameter that was given fourth.
        """
        xp = backend_for("cpu").xp
        found = {name: xp.array(getattr(self, name), "float64") for name in self.hyperparameters}
        for key, (group, i) in sorted(self._places().items()):
            found[f"{key}.steps"] = xp.array(group.flush_steps()[i], "int64")
            for name, array in self._stored(group).items():
                found[f"{key}.{name}"] = group.part(array, i).copy()
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, so that training goes on bit for bit; all of it or, on error, none.

        Raises:
            KeyError: names are missing or unexpected: the state is of another optimizer or of another model.
            ValueError: an array's shape is not that of its parameter.
        """
        own = self.state_dict()
        missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
        if missing or unexpected:
            raise KeyError(
                f"{type(self).__name__}.load_state_dict: missing {missing or 'nothing'}, "
                f"unexpected {unexpected or 'nothing'}"
            )
        for name, array in own.items():
            if tuple(state[name].shape) != array.shape:
                raise ValueError(
                    f"{type(self).__name__}.load_state_dict: {name} must have shape {array.shape}, "
                    f"got {tuple(state[name].shape)}"
                )
        for name in self.hyperparameters:
            setattr(self, name, state[name].tolist())
        places = self._places()
        for group in self._groups:
            group.restart([int(state[f"{index}.steps"]) for index in group.indices])
        for key, (group, i) in places.items():
            for name, array in self._stored(group).items():
                value = state[f"{key}.{name}"]
                backend = backend_of(value)
                group.part(array, i)[...] = group.backend.from_numpy(backend.to_numpy(value), group.device)

    def _places(self) -> dict[int, tuple[FlatParameters, int]]:
        return {index: (group, i) for group in self._groups for i, index in enumerate(group.indices)}

    @staticmethod
    def _stored(group: FlatParameters) -> dict[str, Array]:
        return group.states if group.master is None else {**group.states, "master": group.master}

    # -- arguments ------------------------------------------------------------------------------------------------
    def _distinct(self, parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
        kind = type(self).__name__
        if isinstance(parameters, Parameter):
            raise TypeError(f"{kind}: parameters must be an iterable of Parameters, got one Parameter: write [it]")
        found: dict[int, Parameter] = {}
        for i, parameter in enumerate(parameters):
            if not isinstance(parameter, Parameter):
                raise TypeError(f"{kind}: parameters[{i}] must be a Parameter, got {type(parameter).__name__}")
            found[id(parameter)] = parameter
        if not found:
            raise ValueError(f"{kind}: parameters must hold at least one Parameter, got none")
        return tuple(found.values())

    def _number(self, name: str, value: float, below: float = math.inf) -> float:
        """A hyper-parameter in ``0 <= value < below`` as a float."""
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise TypeError(f"{type(self).__name__}: {name} must be a number, got {value!r}")
        if not 0.0 <= float(value) < below:
            limit = "finite" if below == math.inf else f"below {below:g}"
            raise ValueError(f"{type(self).__name__}: {name} must not be negative and be {limit}, got {value!r}")
        return float(value)
