"""A linear layer with what follows it as one launch: the same numbers, the same gradients, the same random stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella.backend import Device, backend_for


def model(*after: Any, seed: int = 3) -> L.Sequential:
    return L.Sequential(L.Linear(6, 8, rng=lamella.Generator(seed)), *after, L.Linear(8, 2, rng=lamella.Generator(4)))


CASES: dict[str, Callable[[], L.Sequential]] = {
    "relu": lambda: model(L.ReLU()),
    "gelu": lambda: model(L.GELU()),
    "sigmoid": lambda: model(L.Sigmoid()),
    "dropout": lambda: model(L.Dropout(0.4, rng=lamella.Generator(5))),
    "tanh and dropout": lambda: model(L.Tanh(), L.Dropout(0.4, rng=lamella.Generator(5))),
    "dropout of 0": lambda: model(L.SiLU(), L.Dropout(0.0)),
    "no bias": lambda: L.Sequential(L.Linear(6, 2, bias=False, rng=lamella.Generator(3)), L.SELU()),
    "a function": lambda: model(L.relu),
    "at the end": lambda: L.Sequential(L.Linear(6, 2, rng=lamella.Generator(3)), L.Softplus(2.0)),
}


def run(make: Callable[[], L.Sequential], device: Device | str, train: bool, shape: Any = (5, 6)) -> list[Any]:
    net = make().to(device)
    net.train(train)
    x = lamella.tensor(np.random.default_rng(0).standard_normal(shape, np.float32), device=device, requires_grad=True)
    found = []
    for _ in range(2):  # the second time with the rest of the random stream, and into the optimizer's buffers
        y = net(x)
        y.backward(y.data * 2)
        found += [y.to_numpy(), *(backend_for(device).to_numpy(p.grad) for p in (x, *net.parameters()))]
    return found


_QUICK = {"relu", "tanh and dropout"}  # each other case has kernels of its own to compile


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in _QUICK else pytest.mark.slow) for n in CASES])
def test_it_computes_what_the_modules_do_one_by_one(name: str, train: bool) -> None:
    with lamella.testing.simulator():
        for a, b in zip(run(CASES[name], "cpu", train), run(CASES[name], "simulator", train), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_more_axes_and_an_empty_batch() -> None:
    with lamella.testing.simulator():
        for shape in ((2, 3, 6), (6,), (0, 6)):
            for name in ("relu", "tanh and dropout"):
                both = (run(CASES[name], device, True, shape) for device in ("cpu", "simulator"))
                for a, b in zip(*both, strict=True):
                    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def launches(net: Any, x: Any) -> dict[str, int]:
    with lamella.testing.simulator() as sim:
        net.to("simulator")
        x = lamella.tensor(x, device="simulator")
        sim.reset()
        net(x)
        return dict(sim.launches)


X = np.ones((3, 6), np.float32)


def test_one_launch_for_bias_activation_and_dropout() -> None:
    assert launches(model(L.Tanh(), L.Dropout(0.5)), X) == {"activation_forward": 1}
    assert launches(model(L.Identity(), L.ReLU(), L.Dropout(0.0)), X) == {"activation_forward": 1}


def test_hooks_and_classes_of_ones_own_are_called() -> None:
    class Doubled(L.ReLU):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 2.0

    class Wide(L.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 1.0

    seen: list[Any] = []
    with lamella.testing.simulator():
        x = lamella.tensor(X, device="simulator")
        plain = model(L.ReLU()).to("simulator")[:2]
        doubled = model(Doubled()).to("simulator")[:2]
        np.testing.assert_allclose(doubled(x).to_numpy(), 2 * plain(x).to_numpy(), rtol=1e-6)
        for i in range(2):
            net = model(L.ReLU()).to("simulator")[:2]
            net[i].register_forward_hook(lambda module, inputs, output: seen.append(type(module).__name__))
            np.testing.assert_allclose(net(x).to_numpy(), plain(x).to_numpy(), rtol=1e-6)
        wide = L.Sequential(Wide(6, 8), L.ReLU()).to("simulator")
        np.testing.assert_allclose(
            wide(x).to_numpy(), np.maximum(L.linear(x, wide[0].weight, wide[0].bias).to_numpy() + 1, 0), rtol=1e-5
        )
    assert seen == ["Linear", "ReLU"]


def test_an_error_names_the_module() -> None:
    with lamella.testing.simulator():
        net = L.Sequential(L.Sequential(L.Linear(6, 8), L.ReLU())).to("simulator")
        with pytest.raises(ValueError, match=r"linear: x must have shape[\s\S]*in module 0.0 \(Linear\)"):
            net(lamella.tensor(X[:, :5], device="simulator"))


_OTHERS = [pytest.param(f, marks=pytest.mark.slow, id=type(f).__name__) for f in (L.GELU(), L.relu, L.Swish(0.7))]


@pytest.mark.parametrize("activation", [pytest.param(None, id="none"), *_OTHERS])
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_linear_activation_is_its_formula(activation: Any, p: float, device: Device) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s, np.float32) for s in ((2, 5, 6), (4, 6), (4,), (2, 5, 4))]
    activation = activation.to(device) if isinstance(activation, L.Module) else activation
    given, again = (
        [lamella.tensor(a, device=device, requires_grad=True) for a in arrays] for _ in range(2)
    )
    x, w, b, r = given
    y = L.linear_activation(x, w, b, activation, residual=r, p=p, rng=lamella.Generator(1))
    x, w, b, r = again
    z = L.linear(x, w, b)
    z = z if activation is None else activation(z)
    expected = r + L.dropout(z, p, rng=lamella.Generator(1))
    np.testing.assert_allclose(y.to_numpy(), expected.to_numpy(), rtol=1e-5, atol=1e-6)
    for result in (y, expected):
        result.backward(result.data * 0 + 3)
    for one, other in zip(given, again, strict=True):
        to_numpy = backend_for(device).to_numpy
        np.testing.assert_allclose(to_numpy(one.grad), to_numpy(other.grad), rtol=1e-5, atol=1e-5)


def test_a_second_walk_with_another_gradient_is_not_the_first() -> None:
    with lamella.testing.simulator() as sim:
        x = lamella.tensor(X, device="simulator", requires_grad=True)
        w = lamella.tensor(np.ones((4, 6), np.float32), device="simulator")
        y = L.linear_activation(x, w, None, L.Tanh())
        y.backward(y.data * 0 + 1, retain_graph=True)
        first = sim.to_numpy(x.grad).copy()
        x.grad = None
        y.backward(y.data * 0 + 3)
        np.testing.assert_allclose(sim.to_numpy(x.grad), 3 * first, rtol=1e-6)


def test_a_residual_that_does_not_fit_is_named() -> None:
    with lamella.testing.simulator():
        x, w, r = (lamella.tensor(a, device="simulator") for a in (X, np.ones((4, 6), "f4"), np.ones((3, 5), "f4")))
        with pytest.raises(ValueError, match=r"residual must be float32 of shape \(3, 4\), got float32 of \(3, 5\)"):
            L.linear_activation(x, w, residual=r)
