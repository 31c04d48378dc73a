"""Numbers that introductory lectures print, and the compositions that they draw."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for


def test_the_9_16_8_1_network_has_305_parameters() -> None:
    model = L.Sequential(L.Linear(9, 16), L.ReLU(), L.Linear(16, 8), L.ReLU(), L.Linear(8, 1))
    assert model.num_parameters() == 305


def test_softmax_of_one_two_three_minus_one(device: Device) -> None:
    phi = L.softmax(lamella.tensor([1.0, 2.0, 3.0, -1.0], device=device)).to_numpy()
    np.testing.assert_allclose(phi, [0.089, 0.242, 0.657, 0.012], atol=5e-4)


def test_softmax_jacobian_is_phi_k_delta_jk_minus_phi_j_phi_k(device: Device) -> None:
    scores = [1.0, 2.0, 3.0, -1.0]
    e = np.exp(np.array(scores, dtype=np.float64))
    phi = e / e.sum()
    for k in range(4):
        x = lamella.tensor(scores, device=device, requires_grad=True)
        L.softmax(x)[k].backward()
        row = backend_for(device).to_numpy(x.grad)
        np.testing.assert_allclose(row, phi[k] * (np.arange(4) == k) - phi * phi[k], atol=1e-7)


def test_a_composition_with_skips_has_the_gradient_of_its_formula(device: Device) -> None:
    """f(x) = H2(x, H0(x), H1(H0(x))) with H0 = tanh(a x), H1 = b u**2, H2 = x u + v / x."""
    a, b = 0.7, -1.3
    x = lamella.tensor([0.5, -2.0, 3.0], device=device, requires_grad=True)

    def h0(x: lamella.Tensor) -> lamella.Tensor:
        return lamella.tanh(a * x)

    def h1(u: lamella.Tensor) -> lamella.Tensor:
        return b * u**2

    def h2(x: lamella.Tensor, u: lamella.Tensor, v: lamella.Tensor) -> lamella.Tensor:
        return x * u + v / x

    h2(x, h0(x), h1(h0(x))).sum().backward()

    z = np.array([0.5, -2.0, 3.0])
    u, du = np.tanh(a * z), a * (1 - np.tanh(a * z) ** 2)
    expected = u + z * du + (2 * b * u * du) / z - b * u**2 / z**2
    np.testing.assert_allclose(backend_for(device).to_numpy(x.grad), expected, rtol=2e-6)


def test_a_layer_used_twice_gets_the_sum_of_both_gradients(device: Device) -> None:
    layer = L.Linear(3, 3, rng=lamella.Generator(1)).to(device)
    x = lamella.tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3) / 5, device=device)
    layer(layer(x)).sum().backward()
    w, c, z = layer.weight.to_numpy(), layer.bias.to_numpy(), x.to_numpy()
    h, ones = z @ w.T + c, np.ones((2, 3), np.float32)
    to_numpy = backend_for(device).to_numpy
    np.testing.assert_allclose(to_numpy(layer.weight.grad), ones.T @ h + (ones @ w).T @ z, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.bias.grad), ones.sum(0) + (ones @ w).sum(0), rtol=1e-5)


def test_a_tensor_used_in_three_places_gets_the_sum_of_three_gradients(device: Device) -> None:
    x = lamella.tensor([1.0, 2.0], device=device, requires_grad=True)
    (x * x + 3 * x + lamella.exp(x)).sum().backward()
    z = np.array([1.0, 2.0])
    np.testing.assert_allclose(backend_for(device).to_numpy(x.grad), 2 * z + 3 + np.exp(z), rtol=1e-6)


@pytest.mark.parametrize("after", ["backward", "forgotten"])
def test_memory_of_a_composition_is_free_without_the_garbage_collector(after: str) -> None:
    gc.disable()
    try:
        layer = L.Linear(64, 64, rng=lamella.Generator(0))
        x = lamella.tensor(np.ones((8, 64), np.float32))
        hidden = lamella.tanh(layer(x))
        array = weakref.ref(hidden.data)
        loss = (hidden * hidden + layer(hidden)).sum()
        del hidden
        assert array() is not None  # the tape needs it
        if after == "backward":
            loss.backward()
        else:
            del loss
        assert array() is None
    finally:
        gc.enable()
