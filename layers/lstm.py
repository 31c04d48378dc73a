"""Long short-term memory: a cell that keeps, forgets and shows what it holds through gates."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op, reshape
from ..backend import Array, Generator
from .recurrent import Recurrent, RecurrentCell, Walk, pair


@op
def _lstm(
    x: Array,
    h: Array,
    c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    active: Array | None,
    reverse: bool,
) -> Any:
    """The equations of :class:`LSTM` for all steps.

    All four gates are one tanh, by ``sigmoid(x) = (1 + tanh(x / 2)) / 2``. Backwards, with everything that does not
    depend on later steps computed for all steps at once: ``dc_t += dh_t o (1 - tanh(c_t)^2)``; the gates' gradients are
    ``dc_t`` times g i(1-i), c_(t-1) f(1-f), i(1-g^2), and ``dh_t`` times tanh(c_t) o(1-o); ``dc_(t-1) = dc_t f``.
    """
    walk = Walk(x, active, reverse)
    x = walk.inputs(x)
    h, c, w_ih, w_hh, b_ih, b_hh, w_hr = walk.widened(h, c, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    xp, gemm, width = walk.xp, walk.backend.gemm, c.shape[1]
    factor, shift = xp.full(4 * width, 0.5, walk.wide), xp.full(4 * width, 0.5, walk.wide)
    factor[2 * width : 3 * width], shift[2 * width : 3 * width] = 1.0, 0.0  # g is a tanh already
    gates = walk.product(x, w_ih, b_ih, b_hh)  # (T, N, 4 H), and soon i, f, g, o
    gates *= factor
    scaled = (w_hh * factor[:, None]).T
    h_before, h_after = walk.states(h)
    c_before, c_after = walk.states(c)
    shown = walk.empty(walk.steps, walk.count, width)  # tanh(c)
    for t in walk.order:
        gate, cell, show = gates[t], c_after[t], shown[t]
        gate += gemm(h_before[t], scaled)
        xp.tanh(gate, out=gate)
        gate *= factor
        gate += shift
        i, f, g, o = (gate[:, n * width : (n + 1) * width] for n in range(4))
        xp.multiply(i, g, out=show)
        xp.multiply(f, c_before[t], out=cell)
        cell += show
        xp.tanh(cell, out=show)
        if w_hr is None:
            xp.multiply(o, show, out=h_after[t])
        else:
            gemm(o * show, w_hr.T, h_after[t])
        walk.hold(t, cell, c_before[t])
        walk.hold(t, h_after[t], h_before[t])

    def backward(dy: Array | None, dh: Array | None, dc: Array | None) -> Any:
        dy, dh, dc = walk.widened(dy, dh, dc)
        dh = xp.zeros_like(h) if dh is None else dh
        dc = xp.zeros_like(c) if dc is None else dc
        i, f, g, o = (gates[:, :, n * width : (n + 1) * width] for n in range(4))
        slopes = gates * (1 - gates)  # of i, f and o
        d = slopes.reshape(walk.steps, walk.count, 4, width)
        d[:, :, 0] *= g
        d[:, :, 1] *= c_before
        d[:, :, 2] = i * (1 - g * g)
        d[:, :, 3] *= shown
        into_cell = o * (1 - shown * shown)
        projected = None if w_hr is None else walk.empty(*h_after.shape)
        for t in reversed(walk.order):
            dshown = dhidden = walk.arriving(t, dy, dh)
            if projected is not None:
                projected[t] = dhidden
                dshown = gemm(dhidden, w_hr)
            dcell = walk.arriving(t, None, dc) + dshown * into_cell[t]
            d[t, :, :3] *= dcell[:, None]
            d[t, :, 3] *= dshown
            dh = walk.passed(t, gemm(slopes[t], w_hh), dh)
            dc = walk.passed(t, dcell * f[t], dc)
        dx, dw_ih, db = walk.gradients(slopes, x, w_ih)
        dw_hh = walk.weight_gradient(slopes, h_before)
        biases = (None, None) if b_ih is None else (db, db.copy())
        dw_hr = None if projected is None else walk.weight_gradient(projected, o * shown)
        return walk.narrowed(dx, dh, dc, dw_ih, dw_hh, *biases, dw_hr)

    return walk.narrowed(walk.output(h_after), walk.last(h, h_after), walk.last(c, c_after)), backward


class LSTM(Recurrent):
    """A recurrent layer with a cell and three gates, over a sequence, in layers, in one direction or two.

    ``i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of x_t W_ih^T + b_ih + h_(t-1) W_hh^T + b_hh``,
    ``c_t = f c_(t-1) + i g``, ``h_t = o tanh(c_t)``, with ``proj_size`` ``h_t = (o tanh(c_t)) W_hr^T``.

    Args:
        input_size: width of the input.
        hidden_size: H, width of the cell.
        num_layers: how many layers, each reading what the one below puts out.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: ``(N, T, input_size)`` instead of ``(T, N, input_size)``.
        dropout: probability of dropping between the layers, in training.
        bidirectional: whether a second set of weights reads backwards; the outputs stand side by side.
        proj_size: P, width of the state and output, below H; 0: they are as wide as the cell.
        rng: draws the initial values, U(±1/sqrt(H)), and the masks of dropout; a fresh generator by default.

    Attributes:
        weight_ih_l0: shape ``(4 H, input_size)``, in layer k > 0 ``(4 H, directions P)``; rows of i, f, g, o.
        weight_hh_l0: ``(4 H, P)``. bias_ih_l0, bias_hh_l0: ``(4 H,)``. weight_hr_l0: ``(P, H)``, with ``proj_size``.
            Layer k has ``l{k}``; the backward direction's names end in ``_reverse``.
    Source: Hochreiter and Schmidhuber 1997, "Long short-term memory"; forget gate: Gers et al. 2000, "Learning to
        forget"; projection: Sak et al. 2014, arXiv 1402.1128.
    """

    _gates, _states = 4, 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, rng)

    def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``(output, (h_n, c_n))``: the last layer's states at each step, and all layers' after the last step.

        Args:
            x: shape ``(T, N, input_size)``, with ``batch_first`` ``(N, T, input_size)``, or ``(T, input_size)``.
            hx: ``(h_0, c_0)``, the states before the first step, shapes ``(num_layers directions, N, P)`` and
                ``(num_layers directions, N, H)``; 0 by default.
            lengths: as for :class:`RNN`.
        Returns:
            output ``(T, N, directions P)``, laid out as ``x``; ``h_n`` and ``c_n`` shaped as ``h_0`` and ``c_0``.
        """
        y, (h, c) = self._run(x, pair("LSTM", hx), lengths)
        return y, (h, c)

    def _step(self, x: Any, states: Any, parameters: dict[str, Any], active: Any, reverse: bool) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = _lstm(x, *states, *parameters.values(), active, reverse)
        return result


class LSTMCell(RecurrentCell):
    """One step of :class:`LSTM`, without a projection.

    Args:
        input_size: width of the input.
        hidden_size: H, width of the cell.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        rng: draws the initial values, U(±1/sqrt(H)); a fresh generator by default.
    """

    _gates = 4

    def forward(self, x: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """``(h, c)``, each ``(N, H)`` or ``(H,)``, from ``x`` ``(N, input_size)`` and ``hx = (h, c)``, 0 by default."""
        step, states = self._prepared(x, pair("LSTMCell", hx), 2)
        _, h, c = _lstm(step, *states, *self._parameters().values(), None, None, False)
        shape = (*x.shape[:-1], self.hidden_size)
        return reshape(h, shape), reshape(c, shape)
