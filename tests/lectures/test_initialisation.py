"""The claims of ``examples/lectures/initialisation.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(1))


def sizes(found: dict[str, Any], activation: str, start: str) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviations of values and of gradients by layer."""
    _, values, slopes = zip(*found[activation][start], strict=True)
    return np.array(values), np.array(slopes)


def test_units_that_start_equal_stay_equal(found: dict[str, Any]) -> None:
    weights = found["from equal weights"][0.01]
    assert abs(weights - 0.01).max() > 0.01, "they have learned"
    assert np.ptp(weights, axis=0).max() <= 1e-6


def test_from_zero_weights_only_the_last_bias_learns(lecture: ModuleType, found: dict[str, Any]) -> None:
    assert np.all(found["from equal weights"][0.0] == 0)
    model = lecture.network(L.Tanh, lambda shape, rng: L.init.zeros(shape), (6, 5, 4, 3), lamella.Generator(0))
    L.cross_entropy(model(np.ones((2, 6), np.float32)), np.array([0, 2])).backward()
    learns = {name for name, parameter in model.named_parameters() if np.any(parameter.grad)}
    assert learns == {"4.bias"}


@pytest.mark.parametrize("activation", ["Tanh", "ReLU"])
def test_small_weights_lose_values_and_gradients_by_a_factor_a_layer(found: dict[str, Any], activation: str) -> None:
    values, slopes = sizes(found, activation, "small, N(0, 0.01²)")
    assert np.all(values[1:] <= 0.2 * values[:-1])
    assert np.all(slopes[:-1] <= 0.2 * slopes[1:])


def test_large_weights_saturate_tanh_and_let_values_of_relus_and_all_gradients_explode(found: dict[str, Any]) -> None:
    start = "large, N(0, 1)"
    saturated = [np.mean(abs(values) > 0.99) for values, _, _ in found["Tanh"][start]]
    assert min(saturated[1:]) > 0.5
    assert np.mean(abs(found["Tanh"]["Glorot"][1][0]) > 0.99) <= 0.001
    assert sizes(found, "ReLU", start)[0][-1] >= 1e12
    for activation in ("Tanh", "ReLU"):
        slopes = sizes(found, activation, start)[1]
        assert slopes[0] >= 1e4 * slopes[-1]


@pytest.mark.parametrize(("activation", "start"), [("Tanh", "Glorot"), ("ReLU", "He")])
def test_the_scaled_starts_keep_sizes(found: dict[str, Any], activation: str, start: str) -> None:
    for kept in sizes(found, activation, start):
        assert kept.max() <= 6 * kept.min(), "through twenty layers"


def test_glorots_scale_is_too_small_for_relu(found: dict[str, Any]) -> None:
    values, _ = sizes(found, "ReLU", "Glorot")
    assert values[-1] <= 0.01 * values[0], "by about 1/√2 a layer"
