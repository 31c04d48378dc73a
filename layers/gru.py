"""The gated recurrent unit: one gate resets the state, another mixes the old with the new."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op, reshape
from ..backend import Array, Generator
from ..kernels import sum_rows
from .recurrent import Recurrent, RecurrentCell, Walk


@op
def _gru(
    x: Array,
    h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    active: Array | None,
    reverse: bool,
) -> Any:
    """The equations of :class:`GRU` for all steps; s is what the state contributes to n, ``h W_hn^T + b_hn``.

    Backwards, with ``d = dh_t``: n takes ``dn = d (1 - z)(1 - n^2)``, z ``d (h - n) z (1 - z)``, r ``dn s r (1 - r)``
    and s ``dn r``; ``dh_(t-1) = d z`` and what comes through ``W_hh``.
    """
    walk = Walk(x, active, reverse)
    x, (h, w_ih, w_hh, b_ih, b_hh) = walk.inputs(x), walk.widened(h, weight_ih, weight_hh, bias_ih, bias_hh)
    xp, gemm, width = walk.xp, walk.backend.gemm, h.shape[1]
    gates = walk.product(x, w_ih, b_ih)  # (T, N, 3 H), and soon r, z, n
    carried = walk.empty(walk.steps, walk.count, width)  # s
    before, after = walk.states(h)
    for t in walk.order:
        gate, new = gates[t], after[t]
        past = gemm(before[t], w_hh.T)
        if b_hh is not None:
            past += b_hh
        switches, n = gate[:, : 2 * width], gate[:, 2 * width :]
        switches += past[:, : 2 * width]
        switches *= 0.5  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        xp.tanh(switches, out=switches)
        switches *= 0.5
        switches += 0.5
        carried[t] = past[:, 2 * width :]
        xp.multiply(carried[t], gate[:, :width], out=new)
        n += new
        xp.tanh(n, out=n)
        xp.subtract(before[t], n, out=new)
        new *= gate[:, width : 2 * width]
        new += n
        walk.hold(t, new, before[t])

    def backward(dy: Array | None, dlast: Array | None) -> Any:
        dy, dlast = walk.widened(dy, dlast)
        r, z, n = (gates[:, :, i * width : (i + 1) * width] for i in range(3))
        d = walk.empty(*gates.shape)  # of r, z, n before their functions
        d[:, :, :width] = carried * r * (1 - r)
        d[:, :, width : 2 * width] = (before - n) * z * (1 - z)
        d[:, :, 2 * width :] = (1 - z) * (1 - n * n)
        dpast = walk.empty(*gates.shape)
        dh = xp.zeros_like(h) if dlast is None else dlast
        for t in reversed(walk.order):
            dnew = walk.arriving(t, dy, dh)
            dr, dz, dn = (d[t, :, i * width : (i + 1) * width] for i in range(3))
            dn *= dnew
            dr *= dn
            dz *= dnew
            dpast[t] = d[t]
            dpast[t, :, 2 * width :] *= r[t]
            dbefore = gemm(dpast[t], w_hh)
            dbefore += dnew * z[t]
            dh = walk.passed(t, dbefore, dh)
        dx, dw_ih, db_ih = walk.gradients(d, x, w_ih)
        dw_hh = walk.weight_gradient(dpast, before)
        biases: tuple[Any, Any] = (None, None)
        if b_ih is not None:
            biases = db_ih, sum_rows(dpast.reshape(-1, 3 * width))
        return walk.narrowed(dx, dh, dw_ih, dw_hh, *biases)

    return walk.narrowed(walk.output(after), walk.last(h, after)), backward


class GRU(Recurrent):
    """A recurrent layer with two gates, over a sequence, in layers, in one direction or two.

    ``r, z = sigmoid(x_t W_i^T + b_i + h_(t-1) W_h^T + b_h)``,
    ``n = tanh(x_t W_in^T + b_in + r (h_(t-1) W_hn^T + b_hn))``, ``h_t = (1 - z) n + z h_(t-1)``.
    The reset comes after the product with the state, as in PyTorch and cuDNN.

    Args:
        input_size: width of the input.
        hidden_size: H, width of the state.
        num_layers: how many layers, each reading what the one below puts out.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: ``(N, T, input_size)`` instead of ``(T, N, input_size)``.
        dropout: probability of dropping between the layers, in training.
        bidirectional: whether a second set of weights reads backwards; the outputs stand side by side.
        rng: draws the initial values, U(±1/sqrt(H)), and the masks of dropout; a fresh generator by default.

    Attributes:
        weight_ih_l0: shape ``(3 H, input_size)``, in layer k > 0 ``(3 H, directions H)``; rows of r, z, n.
        weight_hh_l0: ``(3 H, H)``. bias_ih_l0, bias_hh_l0: ``(3 H,)``. Layer k has ``l{k}``; the backward direction's
            names end in ``_reverse``.
    Source: Cho et al. 2014, arXiv 1406.1078.
    """

    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, rng)

    def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> tuple[Tensor, Tensor]:
        """``(output, h_n)``; arguments and results as for :class:`RNN`."""
        y, (h,) = self._run(x, None if hx is None else (hx,), lengths)
        return y, h

    def _step(self, x: Any, states: Any, parameters: dict[str, Any], active: Any, reverse: bool) -> tuple[Tensor, ...]:
        p = parameters
        result: tuple[Tensor, ...] = _gru(
            x, *states, p["weight_ih"], p["weight_hh"], p["bias_ih"], p["bias_hh"], active, reverse
        )
        return result


class GRUCell(RecurrentCell):
    """One step of :class:`GRU`.

    Args:
        input_size: width of the input.
        hidden_size: H, width of the state.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        rng: draws the initial values, U(±1/sqrt(H)); a fresh generator by default.
    """

    _gates = 3

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        """The new state, shape ``(N, H)`` or ``(H,)``, from ``x`` ``(N, input_size)`` and ``hx`` (0 by default)."""
        step, states = self._prepared(x, None if hx is None else (hx,), 1)
        _, h = _gru(step, *states, *self._parameters().values(), None, False)
        return reshape(h, (*x.shape[:-1], self.hidden_size))
