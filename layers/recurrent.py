"""What RNN, LSTM and GRU share: parameters by layer and direction, states, lengths, and the walk over the layers.

Each layer and direction is one operation on the tape, with its backward through time written out.
"""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Parameter, Tensor, concat, permute_dims, reshape, stack
from ..autograd.tape import require_arrays
from ..backend import Array, Backend, Generator, as_generator, backend_of
from ..kernels import sum_rows
from . import init
from .drop import check_probability
from .dropout import dropout
from .lengths import length
from .module import Module


class Recurrent(Module):
    """Layers of recurrent cells, in one direction or two; subclassed by RNN, LSTM and GRU."""

    weight_ih_l0: Parameter
    _gates = 1
    _states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        rng: Generator | None,
    ) -> None:
        name = type(self).__name__
        self.input_size = length(name, "input_size", input_size, 1)
        self.hidden_size = hidden = length(name, "hidden_size", hidden_size, 1)
        self.num_layers = length(name, "num_layers", num_layers, 1)
        self.proj_size = length(name, "proj_size", proj_size)
        if self.proj_size >= hidden:
            raise ValueError(f"{name}: proj_size must be below hidden_size, got {proj_size=}, {hidden_size=}")
        self.bias, self.batch_first, self.bidirectional = bool(bias), batch_first, bidirectional
        self.dropout = check_probability(name, dropout, "dropout")
        self.rng = rng = as_generator(name, rng)
        width = self.proj_size or hidden
        for layer in range(self.num_layers):
            taken = self.input_size if layer == 0 else width * (2 if bidirectional else 1)
            for ending in self._endings(layer):
                rows = self._gates * hidden
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, taken), "weight_hh": (rows, width)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if self.proj_size:
                    shapes["weight_hr"] = (self.proj_size, hidden)
                for what, shape in shapes.items():
                    setattr(self, what + ending, Parameter(init.fan_in_uniform(shape, hidden, rng=rng)))

    def _endings(self, layer: int) -> tuple[str, ...]:
        """The ends of the parameters' names, for each direction."""
        return (f"_l{layer}", f"_l{layer}_reverse") if self.bidirectional else (f"_l{layer}",)

    def _step(
        self, x: Any, states: tuple[Any, ...], parameters: dict[str, Any], active: Array | None, reverse: bool
    ) -> tuple[Tensor, ...]:
        """One layer in one direction over ``(T, N, I)``: the outputs, and each state after the last step."""
        raise NotImplementedError

    def _run(self, x: Any, hx: tuple[Any, ...] | None, lengths: Any) -> tuple[Tensor, list[Tensor]]:
        name = type(self).__name__
        require_arrays(name, x=x)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            layout = "(N, T, {0}) or (T, {0})" if self.batch_first else "(T, N, {0}) or (T, {0})"
            raise ValueError(f"{name}: x must have shape {layout.format(self.input_size)}, got {tuple(x.shape)}")
        check_dtype(name, x, self.weight_ih_l0)
        batched = x.ndim == 3
        if not batched:
            x = reshape(x, (x.shape[0], 1, self.input_size))
        elif self.batch_first:
            x = permute_dims(x, (1, 0, 2))
        steps, count = x.shape[:2]
        data = x.data if isinstance(x, Tensor) else x
        active = None if lengths is None else _active(name, lengths, data, steps, count)
        directions = 2 if self.bidirectional else 1
        initial = self._initial(data, hx, (self.num_layers * directions, count), batched)
        last: list[list[Tensor]] = [[] for _ in range(self._states)]
        for layer in range(self.num_layers):
            found = []
            for i, ending in enumerate(self._endings(layer)):
                parameters = {
                    what: getattr(self, what + ending, None)
                    for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
                }
                before = tuple(state[layer * directions + i] for state in initial)
                y, *after = self._step(x, before, parameters, active, reverse=i == 1)
                found.append(y)
                for states, state in zip(last, after, strict=True):
                    states.append(state)
            x = found[0] if directions == 1 else concat(found, 2)
            if self.dropout and layer + 1 < self.num_layers:
                x = dropout(x, self.dropout, training=self.training, rng=self.rng)
        y = x
        if not batched:
            y = reshape(y, (steps, y.shape[2]))
        elif self.batch_first:
            y = permute_dims(y, (1, 0, 2))
        finals = [stack(states) for states in last]
        return y, finals if batched else [reshape(s, (s.shape[0], s.shape[2])) for s in finals]

    def _initial(self, x: Array, hx: tuple[Any, ...] | None, sizes: tuple[int, int], batched: bool) -> list[Any]:
        """Each initial state with three axes: what was given, or zeros."""
        xp = backend_of(x).xp
        widths = (self.proj_size or self.hidden_size, self.hidden_size)[: self._states]
        if hx is None:
            return [xp.zeros_like(x, shape=(*sizes, width)) for width in widths]
        states = []
        for state, width, letter in zip(hx, widths, "hc", strict=False):
            require_arrays(type(self).__name__, **{f"{letter}_0": state})
            wanted = (*sizes, width) if batched else (sizes[0], width)
            if tuple(state.shape) != wanted:
                raise ValueError(
                    f"{type(self).__name__}: {letter}_0 must have shape {wanted}, got {tuple(state.shape)}"
                )
            check_dtype(type(self).__name__, state, self.weight_ih_l0, f"{letter}_0")
            states.append(state if batched else reshape(state, (sizes[0], 1, width)))
        return states

    def extra_repr(self) -> str:
        words = [f"{self.input_size}, {self.hidden_size}"]
        words += [f"num_layers={self.num_layers}"] if self.num_layers > 1 else []
        words += [what for what in ("batch_first", "bidirectional") if getattr(self, what)]
        return ", ".join(words)


class RecurrentCell(Module):
    """One step of a recurrent layer; subclassed by RNNCell, LSTMCell and GRUCell.

    Attributes:
        weight_ih: shape ``(gates hidden_size, input_size)``.
        weight_hh: shape ``(gates hidden_size, hidden_size)``.
        bias_ih, bias_hh: shape ``(gates hidden_size,)``, or None.
    """

    _gates = 1
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, rng: Generator | None = None) -> None:
        name = type(self).__name__
        self.input_size = length(name, "input_size", input_size, 1)
        self.hidden_size = hidden = length(name, "hidden_size", hidden_size, 1)
        rng, rows = as_generator(name, rng), self._gates * hidden
        self.weight_ih = Parameter(init.fan_in_uniform((rows, self.input_size), hidden, rng=rng))
        self.weight_hh = Parameter(init.fan_in_uniform((rows, hidden), hidden, rng=rng))
        self.bias_ih, self.bias_hh = (
            Parameter(init.fan_in_uniform((rows,), hidden, rng=rng)) if bias else None for _ in range(2)
        )

    def _parameters(self) -> dict[str, Any]:
        return {
            "weight_ih": self.weight_ih,
            "weight_hh": self.weight_hh,
            "bias_ih": self.bias_ih,
            "bias_hh": self.bias_hh,
        }

    def _prepared(self, x: Any, states: tuple[Any, ...] | None, count: int) -> tuple[Any, tuple[Any, ...]]:
        """``x`` as one step ``(1, N, I)`` and the states as ``(N, H)``."""
        name = type(self).__name__
        require_arrays(name, x=x)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(f"{name}: x must have shape (N, {self.input_size}) or its last axis, got {tuple(x.shape)}")
        check_dtype(name, x, self.weight_ih)
        rows, wanted = math.prod(x.shape[:-1]), (*x.shape[:-1], self.hidden_size)
        if states is None:
            data = x.data if isinstance(x, Tensor) else x
            states = (backend_of(data).xp.zeros_like(data, shape=(rows, self.hidden_size)),) * count
        else:
            for state in states:
                require_arrays(name, hx=state)
                if tuple(state.shape) != wanted:
                    raise ValueError(f"{name}: a state must have shape {wanted}, got {tuple(state.shape)}")
                check_dtype(name, state, self.weight_ih, "a state")
            states = tuple(reshape(state, (rows, self.hidden_size)) for state in states)
        return reshape(x, (1, rows, self.input_size)), states

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + (", bias=False" if self.bias_ih is None else "")


def check_dtype(name: str, x: Any, weight: Any, what: str = "x") -> None:
    """Raise unless an argument has the dtype of the parameters."""
    if x.dtype != weight.dtype:
        raise TypeError(f"{name}: {what} and the weights must have one dtype, got {x.dtype} and {weight.dtype}")


def pair(owner: str, hx: Any) -> tuple[Any, Any] | None:
    """The two states of an LSTM, or None."""
    if hx is None:
        return None
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise TypeError(f"{owner}: hx must be a pair (h_0, c_0), got {type(hx).__name__}")
    return hx[0], hx[1]


def _active(name: str, lengths: Any, x: Array, steps: int, count: int) -> Array:
    """True where a sequence has not ended, ``(T, N, 1)``."""
    backend = backend_of(x)
    data = lengths.data if isinstance(lengths, Tensor) else backend.xp.asarray(lengths)
    if data.dtype.kind not in "iu":
        raise TypeError(f"{name}: lengths must be integers, got {data.dtype}")
    if tuple(data.shape) != (count,):
        raise ValueError(f"{name}: lengths must have shape ({count},), got {tuple(data.shape)}")
    if not backend.runs_cuda and count and not (int(data.min()) >= 0 and int(data.max()) <= steps):
        raise ValueError(f"{name}: lengths must be in 0 … {steps}, got {data.tolist()}")
    return backend.xp.arange(steps)[:, None, None] < data[:, None]


class Walk:
    """What the operations of one layer and direction share: arrays in the dtype that is computed in, and states.

    The states of all steps lie in one array ``(T + 1, N, H)``; forwards the state after step t is ``states[t + 1]``, in
    reverse ``states[t]``. A sequence that has ended, or in reverse not begun, keeps its state and puts out 0.

    Attributes:
        order: the steps in the order in which they are taken.
    """

    def __init__(self, x: Array, active: Array | None, reverse: bool) -> None:
        self.backend: Backend = backend_of(x)
        self.xp, self.active, self.reverse = self.backend.xp, active, reverse
        self.dtype, self.device = x.dtype, self.backend.device_of(x)
        self.wide = self.xp.dtype("float32") if x.dtype.itemsize == 2 else x.dtype
        self.steps, self.count, _ = x.shape
        self.order = range(self.steps - 1, -1, -1) if reverse else range(self.steps)

    def widened(self, *arrays: Any) -> list[Any]:
        """In float32 where they come in 16 bits."""
        return [None if a is None else a.astype(self.wide, copy=False) for a in arrays]

    def inputs(self, x: Array) -> Array:
        """The input, 0 where a sequence is not active: whatever stands there, NaN included, is not looked at."""
        x = x.astype(self.wide, copy=False)
        return x if self.active is None else self.xp.where(self.active, x, self.wide.type(0))

    def narrowed(self, *arrays: Any) -> tuple[Any, ...]:
        """In the dtype that they came in."""
        return tuple(None if a is None else a.astype(self.dtype, copy=False) for a in arrays)

    def empty(self, *shape: int) -> Array:
        return self.backend.empty(shape, self.wide, self.device)

    def states(self, initial: Array) -> tuple[Array, Array]:
        """Views of one new array: the states before each step, of which the first is there, and those after."""
        array = self.empty(self.steps + 1, *initial.shape)
        array[self.steps if self.reverse else 0] = initial
        return (array[1:], array[:-1]) if self.reverse else (array[:-1], array[1:])

    def last(self, initial: Array, after: Array) -> Array:
        """The state after the last step."""
        return after[self.order[-1]].copy() if self.steps else initial.copy()

    def product(self, x: Array, weight: Array, *biases: Array | None) -> Array:
        """``x weight^T + biases`` for all steps at once."""
        y = self.backend.gemm(x.reshape(self.steps * self.count, x.shape[2]), weight.T)
        for bias in biases:
            if bias is not None:
                y += bias
        return y.reshape(self.steps, self.count, weight.shape[0])

    def hold(self, t: int, new: Array, before: Array) -> None:
        """In place: the old state where a sequence is not active."""
        if self.active is not None:
            new[...] = self.xp.where(self.active[t], new, before)

    def output(self, after: Array) -> Array:
        """The states after each step, 0 where a sequence is not active."""
        return after if self.active is None else self.xp.where(self.active, after, self.wide.type(0))

    def arriving(self, t: int, dy: Array | None, dh: Array) -> Array:
        """The gradient of the state after step t, from the output and from later; 0 where nothing happened."""
        total = dh if dy is None else dh + dy[t]
        return total if self.active is None else self.xp.where(self.active[t], total, self.wide.type(0))

    def passed(self, t: int, dbefore: Array, dafter: Array) -> Array:
        """The gradient of the state before step t: where nothing happened, that of the state after."""
        return dbefore if self.active is None else self.xp.where(self.active[t], dbefore, dafter)

    def gradients(self, d: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        """Of ``x``, ``weight`` and the bias of :meth:`product`, from the gradient ``d`` of its result."""
        rows = d.reshape(self.steps * self.count, d.shape[2])
        dx = self.backend.gemm(rows, weight).reshape(x.shape)
        return dx, self.weight_gradient(d, x), sum_rows(rows)

    def weight_gradient(self, d: Array, x: Array) -> Array:
        """``sum(d^T x)`` over all steps and sequences."""
        rows = self.steps * self.count
        return self.backend.gemm(d.reshape(rows, d.shape[2]).T, x.reshape(rows, x.shape[2]))
