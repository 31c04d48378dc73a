"""The claims of ``examples/lectures/activations.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import erf, expit

import lamella
import lamella.layers as L

from .. import cases_activations

# The closed forms of those activations whose derivative the script does not spell out.
OTHERS = {
    "celu": lambda x: np.exp(np.minimum(x, 0)),
    "elu": lambda x: np.exp(np.minimum(x, 0)),
    "gelu": lambda x: (1 + erf(x / 2**0.5)) / 2 + x * np.exp(-x * x / 2) / (2 * np.pi) ** 0.5,
    "hardshrink": lambda x: abs(x) > 0.5,
    "hardsigmoid": lambda x: (abs(x) < 3) / 6,
    "hardswish": lambda x: (x > 3) + (abs(x) < 3) * (2 * x + 3) / 6,
    "hardtanh": lambda x: abs(x) < 1,
    "leaky_relu": lambda x: np.where(x > 0, 1, 0.01),
    "logsigmoid": lambda x: expit(-x),
    "mish": lambda x: np.tanh(np.log1p(np.exp(x))) + x * expit(x) / np.cosh(np.log1p(np.exp(x))) ** 2,
    "prelu": lambda x: np.where(x > 0, 1, 0.25),
    "relu6": lambda x: (x > 0) & (x < 6),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, 1, 1.6732632423543772 * np.exp(np.minimum(x, 0))),
    "sign": lambda x: 0 * x,
    "silu": lambda x: expit(x) * (1 + x * expit(-x)),
    "softplus": expit,
    "softshrink": lambda x: abs(x) > 0.5,
    "softsign": lambda x: 1 / (1 + abs(x)) ** 2,
    "step": lambda x: 0 * x,
    "swish": lambda x: expit(2 * x) * (1 + 2 * x * expit(-2 * x)),
    "tanhshrink": lambda x: np.tanh(x) ** 2,
    "threshold": lambda x: x > 1,
}
OF_ROWS = {"GLU", "LogSoftmax", "Softmax"}  # their Jacobians are full; below


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(0), examples=100_000)


def test_every_elementwise_activation_is_drawn(lecture: ModuleType) -> None:
    ours = {name.lower() for name in set(cases_activations.CASES) - OF_ROWS}
    assert {name.replace("_", "") for name in lecture.FUNCTIONS} == ours


def test_every_backward_pass_is_the_closed_form(lecture: ModuleType, found: dict[str, Any]) -> None:
    closed = {**OTHERS, **lecture.DERIVATIVES}
    assert set(closed) == set(found["slope"])
    for name, slope in found["slope"].items():
        assert slope.dtype == np.float64
        np.testing.assert_allclose(slope, closed[name](found["x"]), rtol=1e-13, atol=1e-14, err_msg=name)


def test_the_jacobians_of_functions_of_rows_are_their_closed_forms() -> None:
    x = np.array([1.0, 2.0, 3.0, -1.0])
    phi = np.exp(x) / np.exp(x).sum()
    gate, half = expit(x[2:]), np.diag(expit(x[2:]))
    closed = {
        L.softmax: np.diag(phi) - np.outer(phi, phi),
        L.log_softmax: np.eye(4) - phi,
        L.glu: np.concatenate([half, np.diag(x[:2] * gate * (1 - gate))], axis=1),
    }
    for f, jacobian in closed.items():
        for i, row in enumerate(jacobian):
            np.testing.assert_allclose(lamella.grad(lambda x, f=f, i=i: f(x)[i])(x).to_numpy(), row, atol=1e-15)


def test_sigmoids_in_a_row_lose_a_factor_of_four_each_and_relus_nothing(found: dict[str, Any]) -> None:
    for depth, gradient in enumerate(found["row"]["sigmoid"]):
        assert 0 < gradient <= 0.25**depth
    assert found["row"]["relu"] == [1.0] * 9
    assert found["row"]["sigmoid"][-1] < found["row"]["tanh"][-1] / 1000


def test_a_bias_of_a_tenth_keeps_relus_alive(found: dict[str, Any]) -> None:
    assert found["dead"][0.1] == [0.0] * 5
    assert found["dead"][0][-1] > 0.5


def test_means_of_activations_of_normal_inputs(found: dict[str, Any]) -> None:
    bound = 5 / 100_000**0.5  # five standard errors of a variance of at most 1
    assert abs(found["mean"]["tanh"]) <= bound
    assert abs(found["mean"]["sigmoid"] - 0.5) <= bound
    assert abs(found["mean"]["relu"] - (2 * np.pi) ** -0.5) <= bound
