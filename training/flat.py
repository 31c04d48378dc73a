"""Parameters of one device and dtype in one flat array, their gradients in another.

So a step is a dozen array operations however many parameters there are, and backward writes straight into the
gradient array: each ``parameter.data`` is a view of the one, each ``parameter._grad_buffer`` a view of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from ..autograd import Parameter, note_write
from ..backend import Array, Device, StepScalars, backend_for, backend_of
from ..kernels.optimizer_step import has_step_kernel, step_pieces

CHUNK = 1 << 17  # elements updated at a time on the CPU, so that the ten passes of a step find them in the cache
_LONG = 1 << 19  # elements from which chunks, and threads that share them, pay
_ALIGNMENT = 64  # bytes: each parameter starts where vector loads of any width may start


class Run:
    """Neighbouring parameters that are updated together: each has a gradient, and all have had the same steps.

    Attributes:
        first, last: positions of its parameters in the flat arrays' order, the last excluded.
        steps: how many updates these parameters have had.
        numbers: this step's numbers as 0-d arrays, written by the host, read by the device.
        data, gradient, states, master: the same stretch of each flat array.
    """

    __slots__ = ("data", "first", "gradient", "last", "master", "numbers", "scratch", "states", "steps")

    def __init__(self, flat: FlatParameters, first: int, last: int, numbers: tuple[Array, ...]) -> None:
        self.first, self.last, self.steps, self.numbers = first, last, flat.steps[first], numbers
        start, stop = flat.extent(first, last)
        self.data, self.gradient = flat.data[start:stop], flat.gradient[start:stop]
        self.states = tuple(array[start:stop] for array in flat.states.values())
        self.master = None if flat.master is None else flat.master[start:stop]
        self.scratch = flat.scratch[: stop - start]


class FlatParameters:
    """The flat arrays of parameters that share a group, a device and a dtype.

    Args:
        parameters: the parameters, each once; their values are copied, and their ``data`` becomes a view.
        indices: their numbers in the optimizer, for messages.
        settings: their group's hyper-parameters, the same dict that the group changes.
        state_names: the state arrays that the optimizer wants, zero at first.
        scalar_names: the optimizer's numbers per step.
        has_kernel: whether the optimizer's formula has a kernel, for the devices and dtypes that kernels serve.

    Attributes:
        data, gradient: the flat arrays, with gaps so that each parameter is aligned.
        states: the optimizer's flat arrays by name, of ``work_dtype``.
        master: float32 copy of float16 or bfloat16 parameters, which is what a step updates; else None. A step looks
            first which values differ from the copy's and takes them over, so the copy starts anyhow.
        by_kernel: whether a step is one launch for all runs; then there are ``pieces``, what each block updates.
        scalars: this step's numbers, those of each run in turn.
        scratch: for intermediate results, as long as ``data``; empty where each chunk has its own, or none is needed.
        bounds: first element and end of each parameter.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        indices: Sequence[int],
        settings: dict[str, Any],
        state_names: Sequence[str],
        scalar_names: Sequence[str],
        has_kernel: bool,
    ) -> None:
        self.parameters, self.indices, self.scalar_names = tuple(parameters), tuple(indices), tuple(scalar_names)
        self.settings = settings
        self.device: Device = parameters[0].device
        self.backend = backend_for(self.device)
        self.dtype = parameters[0].dtype
        half = self.dtype.itemsize == 2
        self.work_dtype: Any = "float32" if half else self.dtype
        self.size, self.bounds = 0, []
        step = max(1, _ALIGNMENT // self.dtype.itemsize)
        for parameter in self.parameters:
            self.bounds.append((self.size, self.size + parameter.size))
            self.size = -(-(self.size + parameter.size) // step) * step
        self.data = self._zeros(self.dtype)
        self.gradient = self._zeros(self.dtype)
        self.states = {name: self._zeros(self.work_dtype) for name in state_names}
        self.master = self._zeros(self.work_dtype) if half else None
        self.in_chunks = not self.backend.runs_cuda and self.size >= _LONG
        self.by_kernel = has_kernel and has_step_kernel(self.backend, self.dtype)
        self.in_one_go = not (self.in_chunks or self.by_kernel) and self.master is None
        scratch = 0 if self.in_chunks or self.by_kernel else self.size
        self.scratch = self.backend.empty((scratch,), self.work_dtype, self.device)
        self.steps = [0] * len(self.parameters)  # the runs count on, flush_steps writes back
        self.runs: list[Run] = []
        self.scalars = StepScalars(self.device, dtype=self.work_dtype)
        self.pieces: Array = None
        self._having: tuple[bool, ...] | None = None  # which parameters had gradients when the runs were made
        self._complete = False
        self._slots = tuple(
            (p, self.part(self.data, i), self.part(self.gradient, i)) for i, p in enumerate(self.parameters)
        )
        for i in range(len(self.parameters)):
            self._adopt(i)

    def _zeros(self, dtype: Any) -> Array:
        array = self.backend.empty((self.size,), dtype, self.device)
        array[...] = 0
        return array

    def part(self, array: Array, i: int) -> Array:
        """What belongs to the i-th parameter in one of the flat arrays, in its shape."""
        start, stop = self.bounds[i]
        return array[start:stop].reshape(self.parameters[i].shape)

    def gather(self) -> list[Run]:
        """The runs of this step; afterwards every value and every gradient stands in its flat array."""
        for parameter, data, gradient in self._slots:
            if parameter.grad is not gradient or parameter.data is not data:
                break
        else:
            if self._complete:
                return self.runs
        for i, (parameter, data, gradient) in enumerate(self._slots):
            if parameter.data is not data:
                self._adopt(i)
            elif parameter.grad is not None and parameter.grad is not gradient:
                self._take_gradient(i)
        having = tuple(parameter.grad is not None for parameter in self.parameters)
        if having != self._having:
            self.flush_steps()
            self._make_runs(self._stretches(having))
            self._having, self._complete = having, all(having)
        return self.runs

    def _make_runs(self, stretches: list[tuple[int, int]]) -> None:
        names = [[f"{name} {r}" for name in self.scalar_names] for r in range(len(stretches))]
        self.scalars = StepScalars(self.device, *chain(*names), dtype=self.work_dtype)
        self.runs = [
            Run(self, first, last, tuple(self.scalars[name] for name in own))
            for (first, last), own in zip(stretches, names, strict=True)
        ]
        if self.by_kernel:
            extents = [self.extent(first, last) for first, last in stretches]
            self.pieces = self.backend.from_numpy(step_pieces(extents, len(self.scalar_names)), self.device)

    def extent(self, first: int, last: int) -> tuple[int, int]:
        """First element and end of some neighbouring parameters, with the gap behind them."""
        return self.bounds[first][0], self.bounds[last][0] if last < len(self.bounds) else self.size

    def _stretches(self, having: tuple[bool, ...]) -> list[tuple[int, int]]:
        """Neighbours with gradients and equal step counts, as (first, end)."""
        found: list[tuple[int, int]] = []
        for i, has in enumerate(having):
            if has and found and found[-1][1] == i and self.steps[i - 1] == self.steps[i]:
                found[-1] = (found[-1][0], i + 1)
            elif has:
                found.append((i, i + 1))
        return found

    def flush_steps(self) -> list[int]:
        """The number of updates of each parameter."""
        for run in self.runs:
            self.steps[run.first : run.last] = [run.steps] * (run.last - run.first)
        return self.steps

    def restart(self, steps: Sequence[int]) -> None:
        """Take over the parameters' step counts; the runs are made anew."""
        self.steps, self.runs, self._having, self._complete = list(steps), [], None, False

    def _adopt(self, i: int) -> None:
        """Copy a parameter's values in and make its data a view again."""
        parameter, data, gradient = self._slots[i]
        self._copy(i, "data", parameter.data, data)
        note_write(data)
        parameter.data = data
        parameter._grad_buffer = gradient
        if parameter.grad is not None and parameter.grad is not gradient:
            self._take_gradient(i)

    def _take_gradient(self, i: int) -> None:
        parameter, _, gradient = self._slots[i]
        self._copy(i, "grad", parameter.grad, gradient)
        parameter.grad = gradient

    def _copy(self, i: int, what: str, array: Array, target: Array) -> None:
        place = backend_of(array).device_of(array)
        if array.shape != target.shape or array.dtype != target.dtype or place != self.device:
            raise ValueError(
                f"parameter {self.indices[i]}: {what} must stay {target.dtype} of shape {target.shape} on "
                f"{self.device}, as it was given to the optimizer, got {array.dtype} of shape {array.shape} on "
                f"{place}; move or cast the model first, then make a new optimizer"
            )
        target[...] = array
