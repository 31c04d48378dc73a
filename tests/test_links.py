"""Link functions: inverses of each other, derivatives, and the one gradient of all canonical likelihoods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for

LINKS = [L.links.identity, L.links.logit, L.links.log, L.links.softmax]
links = pytest.mark.parametrize("link", LINKS, ids=[link.name for link in LINKS])


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def eta_of(link: L.links.Link, rows: int = 6) -> np.ndarray:
    eta = np.random.default_rng(0).standard_normal((rows, 4))
    return eta - eta.mean(axis=1, keepdims=True) if link.name == "softmax" else eta  # of all η, the one that adds to 0


@links
def test_link_and_inverse_undo_each_other(link: L.links.Link, device: Device) -> None:
    for dtype, rtol in (("float32", 2e-6), ("float64", 1e-13)):
        eta = on(device, eta_of(link).astype(dtype))
        mu = link.inverse(eta)
        again = link.link(mu)
        assert mu.dtype == again.dtype == dtype
        np.testing.assert_allclose(again.to_numpy(), eta_of(link), rtol=rtol, atol=rtol)


MEANS = {
    "identity": lambda eta: eta,
    "logit": lambda eta: 1 / (1 + np.exp(-eta)),
    "log": np.exp,
    "softmax": lambda eta: np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True),
}


@links
def test_the_mean_is_its_definition_and_the_derivative_its_slope(link: L.links.Link, device: Device) -> None:
    eta = eta_of(link)
    mean = MEANS[link.name]
    np.testing.assert_allclose(link.inverse(on(device, eta)).to_numpy(), mean(eta), rtol=1e-12)
    slope = np.empty_like(eta)
    for c in range(eta.shape[1]):
        step = np.zeros(eta.shape[1])
        step[c] = 1e-6
        slope[:, c] = (mean(eta + step) - mean(eta - step))[:, c] / 2e-6
    np.testing.assert_allclose(link.derivative(on(device, eta)).to_numpy(), slope, rtol=1e-7, atol=1e-9)


@links
def test_all_three_are_differentiable(link: L.links.Link, device: Device) -> None:
    eta = eta_of(link, 2)
    gradcheck(link.inverse, on(device, eta))
    gradcheck(link.derivative, on(device, eta))
    gradcheck(link.link, on(device, MEANS[link.name](eta)))


@links
def test_the_gradient_of_every_likelihood_is_mean_minus_target_times_input(link: L.links.Link, device: Device) -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((6, 3)), rng.standard_normal((4, 3))
    y = rng.dirichlet(np.ones(4), 6) if link.name == "softmax" else rng.uniform(0, 1, (6, 4))
    w = lamella.Tensor(on(device, weight), requires_grad=True)
    link.loss(L.linear(on(device, x), w), on(device, y), reduction="sum").backward()
    expected = (MEANS[link.name](x @ weight.T) - y).T @ x
    np.testing.assert_allclose(backend_for(device).to_numpy(w.grad), expected, rtol=1e-10, atol=1e-12)


def test_the_logistic_link_keeps_small_slopes(device: Device) -> None:
    eta = on(device, np.array([-80.0, 80.0], np.float32))
    np.testing.assert_allclose(L.links.logit.derivative(eta).to_numpy(), np.exp(-80.0), rtol=1e-5)


def test_links_say_what_they_are_and_refuse_integers() -> None:
    assert repr(L.links.log) == "Link(log, Poisson)"
    with pytest.raises(TypeError, match="mu must be floating, got int64"):
        L.links.logit.link(np.array([1, 0]))
