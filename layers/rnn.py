"""The plain recurrent layer: the new state is an activation of the input and the old state."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op, reshape
from ..backend import Array, Generator
from .recurrent import Recurrent, RecurrentCell, Walk


@op
def _rnn(
    x: Array,
    h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    nonlinearity: str,
    active: Array | None,
    reverse: bool,
) -> Any:
    """``h_t = f(x_t W_ih^T + b_ih + h_(t-1) W_hh^T + b_hh)``; with ``d = dh_t f'``: ``dh_(t-1) = d W_hh``."""
    walk = Walk(x, active, reverse)
    x, (h, w_ih, w_hh, b_ih, b_hh) = walk.inputs(x), walk.widened(h, weight_ih, weight_hh, bias_ih, bias_hh)
    xp, gemm = walk.xp, walk.backend.gemm
    given = walk.product(x, w_ih, b_ih, b_hh)
    before, after = walk.states(h)
    for t in walk.order:
        new = after[t]
        gemm(before[t], w_hh.T, new)
        new += given[t]
        if nonlinearity == "tanh":
            xp.tanh(new, out=new)
        else:
            xp.maximum(new, 0, out=new)
        walk.hold(t, new, before[t])

    def backward(dy: Array | None, dlast: Array | None) -> Any:
        dy, dlast = walk.widened(dy, dlast)
        slope = 1 - after * after if nonlinearity == "tanh" else (after > 0).astype(walk.wide)
        dh = xp.zeros_like(h) if dlast is None else dlast
        for t in reversed(walk.order):
            slope[t] *= walk.arriving(t, dy, dh)
            dh = walk.passed(t, gemm(slope[t], w_hh), dh)
        dx, dw_ih, db = walk.gradients(slope, x, w_ih)
        dw_hh = walk.weight_gradient(slope, before)
        biases = (None, None) if b_ih is None else (db, db.copy())
        return walk.narrowed(dx, dh, dw_ih, dw_hh, *biases)

    return walk.narrowed(walk.output(after), walk.last(h, after)), backward


def _check(name: str, nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f'{name}: nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')
    return nonlinearity


class RNN(Recurrent):
    """``h_t = f(x_t W_ih^T + b_ih + h_(t-1) W_hh^T + b_hh)`` over a sequence, in layers, in one direction or two.

    Args:
        input_size: width of the input.
        hidden_size: H, width of the state.
        num_layers: how many layers, each reading what the one below puts out.
        nonlinearity: f, ``"tanh"`` or ``"relu"``.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: ``(N, T, input_size)`` instead of ``(T, N, input_size)``.
        dropout: probability of dropping between the layers, in training.
        bidirectional: whether a second set of weights reads backwards; the outputs stand side by side.
        rng: draws the initial values, U(±1/sqrt(H)), and the masks of dropout; a fresh generator by default.

    Attributes:
        weight_ih_l0: shape ``(H, input_size)``, in layer k > 0 ``(H, directions H)``. weight_hh_l0: ``(H, H)``.
        bias_ih_l0, bias_hh_l0: ``(H,)``. Layer k has ``l{k}``; the backward direction's names end in ``_reverse``.
    Source: Elman 1990, "Finding structure in time".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, rng)
        self.nonlinearity = _check("RNN", nonlinearity)

    def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> tuple[Tensor, Tensor]:
        """``(output, h_n)``: the states of the last layer at each step, and those of all layers after the last step.

        Args:
            x: shape ``(T, N, input_size)``, with ``batch_first`` ``(N, T, input_size)``, or ``(T, input_size)``.
            hx: the states before the first step, shape ``(num_layers directions, N, H)``; 0 by default.
            lengths: N integers: how long each sequence is, in any order. After its end the output is 0, and the
                backward direction starts there: what a packed sequence is for elsewhere.
        Returns:
            output ``(T, N, directions H)``, laid out as ``x``, and ``h_n`` of the shape of ``hx``.
        """
        y, (h,) = self._run(x, None if hx is None else (hx,), lengths)
        return y, h

    def _step(self, x: Any, states: Any, parameters: dict[str, Any], active: Any, reverse: bool) -> tuple[Tensor, ...]:
        p = parameters
        result: tuple[Tensor, ...] = _rnn(
            x, *states, p["weight_ih"], p["weight_hh"], p["bias_ih"], p["bias_hh"], self.nonlinearity, active, reverse
        )
        return result


class RNNCell(RecurrentCell):
    """One step of :class:`RNN`: ``h' = f(x W_ih^T + b_ih + h W_hh^T + b_hh)``.

    Args:
        input_size: width of the input.
        hidden_size: H, width of the state.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        nonlinearity: f, ``"tanh"`` or ``"relu"``.
        rng: draws the initial values, U(±1/sqrt(H)); a fresh generator by default.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, rng=rng)
        self.nonlinearity = _check("RNNCell", nonlinearity)

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        """The new state, shape ``(N, H)`` or ``(H,)``, from ``x`` ``(N, input_size)`` and ``hx`` (0 by default)."""
        step, states = self._prepared(x, None if hx is None else (hx,), 1)
        _, h = _rnn(step, *states, *self._parameters().values(), self.nonlinearity, None, False)
        return reshape(h, (*x.shape[:-1], self.hidden_size))
