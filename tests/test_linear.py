"""The fully connected layer against its formula in float64, in every number of dimensions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (2, 5, 3), (2, 1, 4, 3), (0, 3), (0, 5, 3), (5, 0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradients_are_those_of_the_formula(shape: tuple[int, ...], bias: bool, device: Device) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], 2))
    layer = L.Linear(3, 2, bias, rng=lamella.Generator(0)).to(device)
    w = layer.weight.to_numpy().astype(np.float64)
    c = layer.bias.to_numpy().astype(np.float64) if bias else np.zeros(2)
    leaf = lamella.tensor(x, dtype="float32", device=device, requires_grad=True)
    y = layer(leaf)
    y.backward(lamella.tensor(dy, dtype="float32", device=device))
    rows, drows = x.reshape(math.prod(shape[:-1]), 3), dy.reshape(math.prod(shape[:-1]), 2)
    to_numpy = backend_for(device).to_numpy
    np.testing.assert_allclose(y.to_numpy(), x @ w.T + c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(leaf.grad), dy @ w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(layer.weight.grad), drows.T @ rows, rtol=1e-5, atol=1e-6)
    if bias:
        np.testing.assert_allclose(to_numpy(layer.bias.grad), drows.sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 2), (3, 0), (0, 0)])
def test_lengths_of_zero_work(inputs: int, outputs: int) -> None:
    layer = L.Linear(inputs, outputs)
    y = layer(np.ones((2, 5, inputs), np.float32))
    y.sum().backward()
    assert y.shape == (2, 5, outputs)
    assert layer.weight.grad.shape == (outputs, inputs)


def test_initial_values_are_uniform_within_one_over_the_root_of_in_features() -> None:
    layer = L.Linear(400, 300, rng=lamella.Generator(1))
    for values in (layer.weight.to_numpy(), layer.bias.to_numpy()):
        assert np.abs(values).max() <= 1 / 20
        assert np.abs(values).max() >= 0.98 / 20
        assert abs(values.mean()) <= 0.003
    assert abs(layer.weight.to_numpy().std() - 1 / 20 / math.sqrt(3)) <= 2e-4


def test_numpy_integers_are_lengths() -> None:
    assert repr(L.Linear(np.int64(3), np.int32(2))) == "Linear(in_features=3, out_features=2)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L.Linear(2.0, 1), TypeError, "Linear: in_features must be an integer, got 2.0"),
        (lambda: L.Linear(1, True), TypeError, "Linear: out_features must be an integer, got True"),
        (lambda: L.Linear(-1, 1), ValueError, "Linear: in_features must be at least 0, got -1"),
        (lambda: L.Linear(1, 1, rng=0), TypeError, r"Linear: rng must be a lamella.Generator or None, got 0"),
        (lambda: L.Linear(3, 2)(np.ones((4, 5), np.float32)), ValueError, r"got \(4, 5\) and \(2, 3\)"),
        (lambda: L.Linear(3, 2)(np.ones((4, 3))), TypeError, "one dtype, got float64 and float32; cast with .astype"),
        (lambda: L.linear([[1.0]], np.ones((1, 1), np.float32)), TypeError, "x must be a tensor or an array"),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()
