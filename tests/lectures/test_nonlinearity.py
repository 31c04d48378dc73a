"""The claims of ``examples/lectures/nonlinearity.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(1), epochs=200, seeds=2)


def test_linear_layers_one_after_another_are_one(lecture: ModuleType, found: dict[str, Any]) -> None:
    assert found["collapse_error"] <= 1e-14
    first, second = (L.Linear(*sizes, rng=lamella.Generator(0)).to(dtype="float64") for sizes in ((3, 5), (5, 2)))
    weight, bias = lecture.collapse([first, second])
    w1, b1, w2, b2 = (p.to_numpy() for p in (first.weight, first.bias, second.weight, second.bias))
    np.testing.assert_allclose(weight, w2 @ w1, rtol=1e-14)
    np.testing.assert_allclose(bias, w2 @ b1 + b2, rtol=1e-14)
    x = np.array([[0.3, -2.0, 7.0]])
    np.testing.assert_allclose(second(first(x)).to_numpy(), x @ weight.T + bias, rtol=1e-14)


def test_the_best_linear_model_of_xor_says_one_half(found: dict[str, Any]) -> None:
    np.testing.assert_allclose(found["least_squares"], [0, 0, 0.5], atol=1e-14)


def test_two_relus_by_hand_are_xor_exactly(found: dict[str, Any]) -> None:
    assert found["by_hand"].tolist() == [0, 1, 1, 0]
    assert found["hidden"].tolist() == [[0, 0], [1, 0], [1, 0], [2, 1]]
    np.testing.assert_array_equal(found["hidden"] @ [1, -2] > 0.5, found["by_hand"] == 1)


def test_linear_layers_never_pass_a_quarter_and_tanh_learns(lecture: ModuleType, found: dict[str, Any]) -> None:
    linear, tanh = found["losses"].values()
    assert min(min(losses) for losses in linear) >= 0.25 - 1e-12
    assert max(losses[-1] for losses in linear) <= 0.26, "and come close to it"
    assert max(losses[-1] for losses in tanh) <= 0.01
    outputs = [model(lecture.X).to_numpy() for model in found["models"].values()]
    np.testing.assert_allclose(outputs[0], 0.5, atol=0.2)
    np.testing.assert_allclose(outputs[1], lecture.Y, atol=0.1)
