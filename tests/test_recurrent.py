"""RNN, LSTM and GRU: lengths, states, dtypes and errors; values against PyTorch's are in another file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for
from lamella.testing import assert_close

RNG = lamella.Generator
LAYERS = [L.RNN, L.LSTM, L.GRU]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def states(result: Any) -> list[Any]:
    """Output, h_n and, of an LSTM, c_n."""
    y, last = result
    return [y, *(last if isinstance(last, tuple) else (last,))]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_equations_in_float64(layer: type, device: Device) -> None:
    module = layer(3, 4, rng=RNG(0)).to(device, dtype="float64")
    w_ih, w_hh, b_ih, b_hh = (p.to_numpy() for p in module.parameters())
    x = normal(5, 2, 3).astype(float)
    h, c, outputs = np.zeros((2, 4)), np.zeros((2, 4)), []
    for step in x:
        given, past = step @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        if layer is L.RNN:
            h = np.tanh(given + past)
        elif layer is L.LSTM:
            i, f, g, o = np.split(given + past, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            (r, z, n), (past_r, past_z, past_n) = np.split(given, 3, axis=1), np.split(past, 3, axis=1)
            r, z = sigmoid(r + past_r), sigmoid(z + past_z)
            h = (1 - z) * np.tanh(n + r * past_n) + z * h
        outputs.append(h)
    y, last, *cell = states(module(on(device, x)))
    assert_close(y.data, np.stack(outputs), atol=1e-12)
    assert_close(last.data, h[None], atol=1e-12)
    if cell:
        assert_close(cell[0].data, c[None], atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_sequence_of_a_batch_is_as_if_it_were_alone(layer: type, device: Device) -> None:
    module = layer(3, 4, 2, bidirectional=True, batch_first=True, rng=RNG(0)).to(device)
    lengths = [2, 5, 0, 3]
    x = normal(4, 5, 3)
    for row, n in zip(x, lengths, strict=True):
        row[n:] = np.nan  # nobody looks at padding
    leaf = lamella.tensor(x, device=device, requires_grad=True)
    y, *last = states(module(leaf, lengths=lengths))
    sum((part * part).sum() for part in (y, *last)).backward()
    gradients = [p.to_numpy() if p.grad is None else backend_for(device).to_numpy(p.grad) for p in module.parameters()]
    module.zero_grad()
    inputs = []
    for i, n in enumerate(lengths):
        alone = lamella.tensor(x[i : i + 1, :n], device=device, requires_grad=True)
        other, *others = states(module(alone))
        sum((part * part).sum() for part in (other, *others)).backward()
        assert_close(y.to_numpy()[i, :n], other.to_numpy()[0], atol=1e-6)
        assert not y.to_numpy()[i, n:].any()
        for a, b in zip(last, others, strict=True):
            assert_close(a.to_numpy()[:, i], b.to_numpy()[:, 0], atol=1e-6)
        inputs.append(backend_for(device).to_numpy(alone.grad)[0])
    for i, n in enumerate(lengths):
        assert_close(backend_for(device).to_numpy(leaf.grad)[i, :n], inputs[i], atol=2e-6)
        assert not backend_for(device).to_numpy(leaf.grad)[i, n:].any()
    for found, parameter in zip(gradients, module.parameters(), strict=True):
        assert_close(found, backend_for(device).to_numpy(parameter.grad), atol=2e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_sequence_in_two_pieces_is_the_whole(layer: type) -> None:
    module = layer(3, 4, 2, rng=RNG(0))
    x = normal(6, 2, 3)
    whole, *last = states(module(x))
    first, state = module(x[:2])
    second, *after = states(module(x[2:], state))
    assert_close(lamella.autograd.concat([first, second]).data, whole.to_numpy(), atol=1e-6)
    for a, b in zip(after, last, strict=True):
        assert_close(a.data, b.to_numpy(), atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_reach_the_first_state_and_come_from_the_last(layer: type, device: Device) -> None:
    module = layer(2, 3, rng=RNG(0)).to(device, dtype="float64")

    def run(x: Any, h: Any, c: Any) -> Any:
        return tuple(states(module(x, (h, c) if layer is L.LSTM else h, lengths=[2, 3])))

    x, h, c = (normal(*s, seed=i).astype(float) for i, s in enumerate([(3, 2, 2), (1, 2, 3), (1, 2, 3)]))
    gradcheck(run, *(on(device, a) for a in (x, h, c)))


@pytest.mark.parametrize("layer", LAYERS)
def test_16_bit_floats_are_computed_in_float32(layer: type, device: Device) -> None:
    module = layer(3, 4, rng=RNG(0)).to(device)
    x = normal(40, 1, 3)
    expected = states(module(on(device, x)))[0].to_numpy()
    module.to(device, dtype="float16")
    y = states(module(lamella.tensor(x, device=device, dtype="float16")))[0]
    y.sum().backward()
    assert y.dtype == np.float16
    assert_close(y.to_numpy(), expected, atol=4e-3)
    assert all(p.grad.dtype == np.float16 for p in module.parameters())


def test_dropout_lies_between_the_layers_only() -> None:
    x = normal(4, 2, 3)
    for layers, drops in ((1, False), (2, True)):
        module = L.GRU(3, 5, layers, dropout=0.5, rng=RNG(0))
        dropped, plain = module(x)[0].to_numpy(), module.eval()(x)[0].to_numpy()
        assert np.array_equal(dropped, plain) != drops
        assert (dropped != 0).all()


def test_an_empty_sequence_gives_back_the_state() -> None:
    h = normal(1, 2, 4)
    y, last = L.GRU(3, 4, rng=RNG(0))(normal(0, 2, 3), h)
    assert y.shape == (0, 2, 4)
    np.testing.assert_array_equal(last.to_numpy(), h)


@pytest.mark.parametrize("cell", [L.RNNCell, L.LSTMCell, L.GRUCell])
def test_a_cell_is_one_step_of_its_layer(cell: type) -> None:
    layer = getattr(L, cell.__name__.removesuffix("Cell"))(3, 4, rng=RNG(0))
    one = cell(3, 4, rng=RNG(1))
    one.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, state = normal(2, 2, 3), None
    for step in x:
        state = one(step, state)
    for a, b in zip(state if isinstance(state, tuple) else (state,), states(layer(x))[1:], strict=True):
        assert_close(a.data, b.to_numpy()[0], atol=1e-6)


x = normal(5, 2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.GRU(0, 4), ValueError, "GRU: input_size must be at least 1, got 0"),
        (lambda: L.GRU(3, 4, num_layers=0), ValueError, "num_layers must be at least 1, got 0"),
        (lambda: L.RNN(3, 4, nonlinearity="gelu"), ValueError, "nonlinearity must be \"tanh\" or \"relu\", got 'gelu'"),
        (lambda: L.RNNCell(3, 4, nonlinearity=None), ValueError, "RNNCell: nonlinearity must be"),
        (lambda: L.LSTM(3, 4, proj_size=4), ValueError, "proj_size must be below hidden_size, got proj_size=4"),
        (lambda: L.LSTM(3, 4, dropout=-1), ValueError, r"LSTM: dropout must be in \[0, 1\], got -1"),
        (lambda: L.LSTM(3, 4)(normal(5, 2, 4)), ValueError, r"shape \(T, N, 3\) or \(T, 3\), got \(5, 2, 4\)"),
        (lambda: L.LSTM(3, 4)(x.astype(float)), TypeError, "one dtype, got float64 and float32"),
        (lambda: L.LSTM(3, 4)(x, normal(1, 2, 4)), TypeError, r"hx must be a pair \(h_0, c_0\), got ndarray"),
        (lambda: L.LSTM(3, 4)(x, (normal(1, 2, 4), normal(1, 2, 3))), ValueError, r"c_0 must have shape \(1, 2, 4\)"),
        (lambda: L.GRU(3, 4)(x, normal(2, 2, 4)), ValueError, r"h_0 must have shape \(1, 2, 4\), got \(2, 2, 4\)"),
        (lambda: L.GRU(3, 4)(x, lengths=[3, 6]), ValueError, r"lengths must be in 0 … 5, got \[3, 6\]"),
        (lambda: L.GRU(3, 4)(x, lengths=[3]), ValueError, r"lengths must have shape \(2,\), got \(1,\)"),
        (lambda: L.GRU(3, 4)(x, lengths=[3.0, 2.0]), TypeError, "lengths must be integers, got float64"),
        (lambda: L.GRUCell(3, 4)(x), ValueError, r"x must have shape \(N, 3\)"),
        (lambda: L.GRUCell(3, 4)(x[0], normal(3, 4)), ValueError, r"a state must have shape \(2, 4\), got \(3, 4\)"),
        (lambda: L.RNN(3, 4)(x, np.ones((1, 2, 4))), TypeError, "h_0 and the weights must have one dtype, got float64"),
        (lambda: L.LSTM(3, 4)(x, (normal(1, 2, 4), np.ones((1, 2, 4)))), TypeError, "c_0 and the weights must"),
        (lambda: L.GRUCell(3, 4)(x[0], np.ones((2, 4))), TypeError, "a state and the weights must have one dtype"),
        (lambda: L.GRUCell(3, 4)(x[0].astype(float)), TypeError, "GRUCell: x and the weights must have one dtype"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
