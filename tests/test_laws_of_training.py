"""What training must do whatever the code looks like: symmetry stays, dead units, repetition, the convex optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import Generator
from lamella.backend import Device
from lamella.training import SGD, Adagrad, Adam, AdamW, NormalizedGradientDescent, RMSprop, fit

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=0.01),
    "adamw": lambda p: AdamW(p, lr=0.01),
    "rmsprop": lambda p: RMSprop(p, lr=0.01),
    "adagrad": lambda p: Adagrad(p, lr=0.1),
    "normalized": lambda p: NormalizedGradientDescent(p, lr=0.1),
}
X = Generator(3).normal((50, 4))
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype("int64")


def descend(model: Any, optimizer: Any, steps: int, x: Any, y: Any) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        L.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_units_with_equal_weights_stay_equal(name: str, device: Device) -> None:
    """Symmetry: units that start alike get the same gradient for ever, which is why initial weights are random."""
    model = L.Sequential(L.Linear(4, 6), L.Tanh(), L.Linear(6, 2, rng=Generator(0))).to(device)
    for parameter in model._order[0].parameters():
        parameter.data[...] = 0.1
    model._order[2].weight.data[...] = model._order[2].weight.data[:, :1].copy()
    x, y = (lamella.tensor(a, device=device) for a in (X, Y))
    descend(model, OPTIMIZERS[name](model.parameters()), 15, x, y)
    first = model._order[0].weight.to_numpy()
    np.testing.assert_allclose(first, np.broadcast_to(first[:1], first.shape), rtol=1e-5, atol=1e-7)
    assert np.abs(first - 0.1).max() > 1e-3  # they did learn


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_full_batch_descent_lowers_the_loss(name: str, device: Device) -> None:
    model = L.Sequential(L.Linear(4, 8, rng=Generator(0)), L.Tanh(), L.Linear(8, 2, rng=Generator(1))).to(device)
    x, y = (lamella.tensor(a, device=device) for a in (X, Y))
    before = float(L.cross_entropy(model(x), y))
    descend(model, OPTIMIZERS[name](model.parameters()), 30, x, y)
    assert float(L.cross_entropy(model(x), y)) < 0.8 * before


def dead_units(bias: float, seed: int) -> int:
    """How many of 500 ReLU units are 0 on every example of a small set."""
    layer = L.Linear(2, 500, rng=Generator(seed))
    layer.bias.data[...] = bias
    x = lamella.tensor(Generator(seed).split(1).uniform((20, 2), 0.0, 0.5))
    return int((L.relu(layer(x)).to_numpy() <= 0).all(axis=0).sum())


def test_a_small_positive_bias_leaves_fewer_relu_units_dead() -> None:
    counts = [(dead_units(0.1, seed), dead_units(0.0, seed)) for seed in range(5)]
    assert all(with_bias < without for with_bias, without in counts)
    assert min(without for _, without in counts) > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_seed_gives_the_same_run_twice(name: str, device: Device) -> None:
    runs = []
    for _ in range(2):
        rng = Generator(5)
        dropout = L.Dropout(0.2, rng=rng.split(0))
        model = L.Sequential(L.Linear(4, 8, rng=rng), L.ReLU(), dropout, L.Linear(8, 2, rng=rng)).to(device)
        fit(
            model, (X, Y), loss=L.cross_entropy, optimizer=OPTIMIZERS[name](model.parameters()), epochs=2,
            batch_size=16, rng=rng.split(1), clip_norm=1.0, progress=False,
        )  # fmt: skip
        runs.append([p.to_numpy().tobytes() for p in model.parameters()])
    assert runs[0] == runs[1]


def test_softmax_regression_ends_at_scikit_learns_coefficients() -> None:
    """Full-batch descent on a strictly convex loss has one place to go."""
    from sklearn.linear_model import LogisticRegression

    x = Generator(0).normal((90, 3)).astype("float64")
    noise = Generator(1).normal((90, 3))
    y = (x @ np.array([[1.0, -1, 0], [0, 1, -1], [0.5, 0, 0]]) + noise).argmax(axis=1)
    C = 1.0
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=1000).fit(x, y)

    model = L.Linear(3, 3, rng=Generator(0)).to(dtype="float64")
    # theirs: Σ cross entropy + ‖w‖² / 2C; ours: the mean, so that the decay of the weights, not of the bias, is 1/(C N)
    weight, bias = model.weight, model.bias
    optimizer = SGD([{"params": weight, "weight_decay": 1 / (C * len(x))}, {"params": bias}], lr=0.5, momentum=0.9)
    descend(model, optimizer, 600, lamella.tensor(x), lamella.tensor(y))
    np.testing.assert_allclose(weight.to_numpy(), theirs.coef_, rtol=0, atol=1e-3)
    ours, intercept = bias.to_numpy(), theirs.intercept_  # softmax does not see what is added to all three
    np.testing.assert_allclose(ours - ours.mean(), intercept - intercept.mean(), rtol=0, atol=1e-3)
