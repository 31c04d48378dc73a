"""What all optimizers share: flat arrays, parameters without gradients left alone, state to store, clear errors."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..autograd import Parameter, Tensor, is_floating, note_write, tensor
from ..backend import Array, backend_for, backend_of, is_array, parallel
from ..kernels.gradient_norm import clip_record, scale_by
from ..kernels.optimizer_step import take_over_written
from ..layers.real import real
from .flat import CHUNK, FlatParameters, Run
from .groups import ParameterGroup, Settings, given_groups, keep_states

_GRAIN = 1 << 18  # elements for which waking another thread pays


class Optimizer:
    """Changes parameters by their gradients, in place; the base of :class:`SGD`, :class:`Adam` and of your own.

    Parameters, gradients and state live in flat arrays, one set for each group, device and dtype, and each parameter's
    ``data`` becomes a view. So move a model to its device first and make its optimizer afterwards. The next backward
    after :meth:`zero_grad` writes into the same gradient arrays: copy a gradient that you want to keep. A parameter
    without a gradient (a frozen one, ``requires_grad=False``) is left alone in that step, and so is its state. float16
    and bfloat16 parameters are updated through float32 copies.

    What the gradient is taken over is the caller's choice: all examples (full-batch descent: one batch of all of them),
    a few (mini-batches), or one.

    A subclass names its numbers below and writes ``_numbers`` and ``_update``; and, where kernels have its formula,
    ``_launch``.

    Args:
        parameters: an iterable of Parameters, such as ``model.parameters()``; one that comes twice counts once. Or
            groups: dicts with ``"params"`` and hyper-parameters of their own,
            ``Adam([{"params": head.parameters()}, {"params": body.parameters(), "lr": 1e-4}], lr=1e-3)``.
        hyperparameters: ``lr``, the learning rate, >= 0, and the subclass's own, for groups that do not give theirs.
    Attributes:
        parameters: the parameters, in order, each once.
        groups: for each group its hyper-parameters, ``optimizer.groups[1]["lr"] = 1e-4``; see :class:`ParameterGroup`.
    Raises:
        TypeError: something in ``parameters`` is not a Parameter.
        ValueError: there are none, one is in two groups, or a hyper-parameter is unknown or out of its range.
    """

    state_names: tuple[str, ...] = ()  # arrays kept between steps, zero at first
    scalar_names: tuple[str, ...] = ()  # numbers computed on the host for each step

    def __init__(
        self, parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]], lr: float, **hyperparameters: Any
    ) -> None:
        kind = type(self)
        common = kind._checked({"lr": lr, **hyperparameters})
        self._lr: float = common["lr"]
        groups, flats, first = [], [], 0
        for members, own in given_groups(kind.__name__, parameters, tuple(common)):
            settings = kind._checked({**common, **own})
            if self._lr == 0.0 and settings["lr"] != 0.0:
                raise ValueError(f"{kind.__name__}: lr must be above 0 where a group has its own, got lr=0")
            states = self._states(settings)
            check = functools.partial(keep_states, kind, states)
            share = settings["lr"] / self._lr if self._lr else 1.0
            groups.append(ParameterGroup(members, settings, check, share))
            alike: dict[Any, list[int]] = {}
            for i, parameter in enumerate(members):
                alike.setdefault((parameter.device, parameter.dtype), []).append(i)
            for places in alike.values():
                some, indices = [members[i] for i in places], [first + i for i in places]
                flats.append(FlatParameters(some, indices, settings, states, self.scalar_names, kind._has_kernel()))
            first += len(members)
        self.groups, self._flats = tuple(groups), tuple(flats)
        self.parameters = tuple(parameter for group in groups for parameter in group.parameters)

    @property
    def lr(self) -> float:
        """The learning rate; may be set between steps, and then all groups' rates keep their ratios."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        before, self._lr = self._lr, self._number("lr", value)
        for group in self.groups:
            group.follow(before, self._lr)

    def zero_grad(self) -> None:
        """Forget the gradients: each becomes None."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, *, max_norm: float | None = None) -> Tensor | None:
        """Update every parameter that has a gradient, in place.

        Args:
            max_norm: update as if all gradients had been shortened by one factor so that their norm is at most this,
                as :func:`clip_grad_norm` does. Where kernels update, the factor goes into them, and the gradients
                themselves stay as they are; elsewhere they are shortened.
        Returns:
            the norm before, a 0-d tensor on the device, where ``max_norm`` is given; else None.
        """
        if max_norm is None:
            self.advance()
            self.apply()
            return None
        check_limit(f"{type(self).__name__}.step", "max_norm", max_norm)
        gradients = list(self.gradients())
        self.advance()
        if not gradients:
            return tensor(0.0)
        record = clip_record(gradients, max_norm)
        in_kernels = all(flat.by_kernel for flat in self._flats) and len({flat.device for flat in self._flats}) == 1
        if in_kernels and type(self).apply is Optimizer.apply:
            self._apply(record)
        else:
            for g in gradients:
                scale_by(g, record)
            self.apply()
        return Tensor(record[:1].reshape(()))

    def advance(self) -> None:
        """The host's half of a step: count it, and write its numbers to where the parameters are."""
        for flat in self._flats:
            numbers: tuple[float, ...] = ()
            for run in flat.gather():
                run.steps += 1
                numbers += self._numbers(flat.settings, run.steps)
            if numbers:
                flat.scalars.write(*numbers)

    def apply(self) -> None:
        """The device's half of a step: launches and array operations only, so that a captured step can replay them."""
        self._apply(None)

    def _apply(self, clip: Array | None) -> None:
        for flat in self._flats:
            if not flat.runs:
                continue
            xp = flat.backend.xp
            if flat.in_one_go:
                for run in flat.runs:
                    self._update(xp, run.data, run.gradient, run.states, run.scratch, run.numbers, flat.settings)
            elif flat.by_kernel:
                self._launch(flat, clip)
            else:
                update = self._update_in_chunks if flat.master is None else self._update_half
                for run in flat.runs:
                    update(xp, flat, run)
            note_write(flat.data)

    def gradients(self) -> Iterator[Array]:
        """Every gradient that there is, as a few long 1-D arrays, which may be changed in place (0 between them)."""
        for flat in self._flats:
            for run in flat.gather():
                yield run.gradient

    @classmethod
    def _checked(cls, settings: Settings) -> Settings:
        """Hyper-parameters as plain numbers; raises where one is out of its range."""
        return {**settings, "lr": cls._number("lr", settings["lr"])}

    @classmethod
    def _states(cls, settings: Settings) -> tuple[str, ...]:
        """The names of the state arrays that a group with these hyper-parameters needs."""
        return cls.state_names

    def _numbers(self, settings: Settings, steps: int) -> tuple[float, ...]:
        """The values of ``scalar_names`` for parameters in their step ``steps``, counted from 1."""
        raise NotImplementedError(f"{type(self).__name__} has no _numbers method")

    def _update(
        self,
        xp: Any,
        p: Array,
        g: Array,
        states: tuple[Array, ...],
        scratch: Array,
        numbers: tuple[Array, ...],
        settings: Settings,
    ) -> None:
        """Change ``p`` and ``states`` in place; ``g`` is only read, ``scratch`` may hold anything. All are 1-D.

        ``numbers`` are 0-d arrays on the device, in the order of ``scalar_names``; ``settings`` may decide what is
        computed, and no value of it may enter the arrays.
        """
        raise NotImplementedError(f"{type(self).__name__} has no _update method")

    def _launch(self, flat: FlatParameters, clip: Array | None) -> None:
        """Update all runs of ``flat`` by one kernel, which multiplies the gradient by ``clip[1]`` where it is given."""
        raise NotImplementedError(f"{type(self).__name__} has no _launch method")

    @classmethod
    def _has_kernel(cls) -> bool:
        """Whether the class whose formula this is has a kernel for it: a subclass with another formula has not."""
        return "_launch" in vars(next(kind for kind in cls.__mro__ if "_update" in vars(kind)))

    def _update_in_chunks(self, xp: Any, flat: FlatParameters, run: Run) -> None:
        def work(start: int, stop: int) -> None:
            scratch = flat.backend.empty((min(CHUNK, stop - start),), flat.work_dtype, flat.device)
            for first in range(start, stop, CHUNK):
                part = slice(first, min(first + CHUNK, stop))
                p, g, states = run.data[part], run.gradient[part], tuple(s[part] for s in run.states)
                self._update(xp, p, g, states, scratch[: p.size], run.numbers, flat.settings)

        parallel(work, run.data.size, _GRAIN)

    def _update_half(self, xp: Any, flat: FlatParameters, run: Run) -> None:
        """Update the float32 copy and round it; a value written since the last step (a checkpoint) goes first."""
        p: Array = run.master
        take_over_written(xp, p, run.data)
        g = run.gradient.astype(p.dtype)
        self._update(xp, p, g, run.states, xp.empty_like(p), run.numbers, flat.settings)
        run.data[...] = p

    # -- copies ---------------------------------------------------------------------------------------------------
    def __reduce_ex__(self, protocol: object) -> Any:
        kind = type(self).__name__
        raise TypeError(
            f"{kind}: an optimizer cannot be copied or pickled apart from the parameters that it changes: make a new "
            f"one, {kind}(copied_model.parameters(), …), and load_state_dict(optimizer.state_dict())"
        )

    # -- state ----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Array]:
        """Hyper-parameters, step counts and state by name, all as arrays: what :func:`lamella.save` takes.

        Hyper-parameters are float64, ``groups.0.lr``; ``3.steps`` and ``3.<state>`` belong to the fourth parameter.
        """
        xp = backend_for("cpu").xp
        found = {"lr": xp.array(self._lr, "float64")}
        for i, group in enumerate(self.groups):
            for name, value in group.settings_to_store().items():
                found[f"groups.{i}.{name}"] = xp.array(value, "float64")
        for key, (flat, i) in sorted(self._places().items()):
            found[f"{key}.steps"] = xp.array(flat.flush_steps()[i], "int64")
            for name, array in self._stored(flat).items():
                found[f"{key}.{name}"] = flat.part(array, i).copy()
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, so that training goes on bit for bit; all of it or, on error, none.

        Raises:
            KeyError: names are missing or unexpected: the state is of another optimizer or of another model.
            TypeError: an array is not floating where it must be, or a number of steps no integer.
            ValueError: an array's shape is not that of its parameter, groups are of other sizes, a hyper-parameter is
                out of its range, steps or sums of squares are negative, or state is NaN.
        """
        settings = self.check_state_dict(state)
        self._lr = float(state["lr"])
        for group, stored in zip(self.groups, settings, strict=True):
            group.restore(stored)
        places = self._places()
        for flat in self._flats:
            flat.restart([int(state[f"{index}.steps"]) for index in flat.indices])
        for key, (flat, i) in places.items():
            for name, array in self._stored(flat).items():
                value = state[f"{key}.{name}"]
                backend = backend_of(value)
                flat.part(array, i)[...] = flat.backend.from_numpy(backend.to_numpy(value), flat.device)

    def check_state_dict(self, state: Mapping[str, Any]) -> list[Settings]:
        """Raise what :meth:`load_state_dict` would raise, and change nothing; gives each group's hyper-parameters."""
        caller = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state, Mapping):
            raise TypeError(f"{caller}: state must be a mapping of names to arrays, got {type(state).__name__}")
        own = self.state_dict()
        missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
        if missing or unexpected:
            raise KeyError(f"{caller}: missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}")
        for name, array in own.items():
            if not is_array(state[name]):
                raise TypeError(f"{caller}: {name} must be an array, got {type(state[name]).__name__}")
            if tuple(state[name].shape) != array.shape:
                raise ValueError(f"{caller}: {name} must have shape {array.shape}, got {tuple(state[name].shape)}")
            _check_values(caller, name, state[name], is_floating(array.dtype))
        self._number("lr", float(state["lr"]))
        found = []
        for i, group in enumerate(self.groups):
            stored = {name: state[f"groups.{i}.{name}"].tolist() for name in group.settings_to_store()}
            if stored["size"] != len(group.parameters):
                raise ValueError(
                    f"{caller}: group {i} must have {len(group.parameters)} parameters, got {stored['size']:g}"
                )
            found.append(group.checked(stored))
        return found

    def _places(self) -> dict[int, tuple[FlatParameters, int]]:
        return {index: (flat, i) for flat in self._flats for i, index in enumerate(flat.indices)}

    @staticmethod
    def _stored(flat: FlatParameters) -> dict[str, Array]:
        return flat.states if flat.master is None else {**flat.states, "master": flat.master}

    @classmethod
    def _number(cls, name: str, value: float, below: float = math.inf) -> float:
        """A hyper-parameter in ``0 <= value < below`` as a float."""
        number = real(cls.__name__, name, value)
        if not 0.0 <= number < below:
            limit = "finite" if below == math.inf else f"below {below:g}"
            raise ValueError(f"{cls.__name__}: {name} must not be negative and be {limit}, got {value!r}")
        return number


def _check_values(caller: str, name: str, array: Array, floating: bool) -> None:
    """Raise where no optimizer can have stored this; infinite sums it can, and a copy of a parameter that is NaN."""
    kind = name.rpartition(".")[2]
    if is_floating(array.dtype) != floating or not (floating or array.dtype.kind in "iu"):
        raise TypeError(f"{caller}: {name} must be {'floating' if floating else 'an integer'}, got {array.dtype}")
    xp = backend_of(array).xp
    if not floating and int(array) < 0:
        raise ValueError(f"{caller}: {name} must not be negative, got {int(array)}")
    if not floating or kind == "master":
        return
    if bool(xp.isnan(array).any()):
        raise ValueError(f"{caller}: {name} must not be NaN")
    if (name == "lr" or name.startswith("groups.")) and not bool(xp.isfinite(array).all()):
        raise ValueError(f"{caller}: {name} must be finite, got {array.tolist()}")
    if (kind == "share" or kind.startswith("square")) and bool((array < 0).any()):
        raise ValueError(f"{caller}: {name} must not be negative, got {float(array.min())}")


def check_limit(caller: str, name: str, value: float) -> None:
    """Raise unless this is a number above 0."""
    if not 0.0 < real(caller, name, value) <= math.inf:
        raise ValueError(f"{caller}: {name} must be above 0, got {value!r}")
