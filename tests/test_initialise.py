"""Initial values: moments, bounds, orthogonality, the same bits for one seed, and how they reach a parameter."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device
from lamella.layers.normal_quantile import normal_quantile

MATRIX, CONVOLUTION = (300, 200), (64, 32, 5, 3)  # fans (200, 300) and (480, 960)


def rng() -> lamella.Generator:
    return lamella.Generator(3)


def check_moments(values: np.ndarray, mean: float, std: float, kurtosis: float) -> None:
    """Mean, standard deviation and fourth moment, each within five standard errors."""
    n = values.size
    z = (values.astype(np.float64) - mean) / std
    assert abs(z.mean()) <= 5 / math.sqrt(n)
    assert abs((z * z).mean() - 1) <= 5 * math.sqrt((kurtosis - 1) / n)
    assert abs((z**4).mean() - kurtosis) <= 5 * math.sqrt(110 / n)


UNIFORM, NORMAL = 1.8, 3.0  # kurtosis
DRAWN: list[tuple[Any, tuple[int, ...], float, float]] = [
    (L.init.normal, MATRIX, 1.0, NORMAL),
    (lambda shape, rng: L.init.normal(shape, std=0.01, rng=rng), MATRIX, 0.01, NORMAL),
    (lambda shape, rng: L.init.uniform(shape, -3.0, 3.0, rng=rng), MATRIX, math.sqrt(3), UNIFORM),
    (L.init.glorot_uniform, MATRIX, math.sqrt(2 / 500), UNIFORM),
    (L.init.glorot_normal, MATRIX, math.sqrt(2 / 500), NORMAL),
    (L.init.glorot_uniform, CONVOLUTION, math.sqrt(2 / 1440), UNIFORM),
    (lambda shape, rng: L.init.glorot_normal(shape, 5 / 3, rng=rng), MATRIX, 5 / 3 * math.sqrt(2 / 500), NORMAL),
    (L.init.he_uniform, MATRIX, math.sqrt(2 / 200), UNIFORM),
    (L.init.he_normal, MATRIX, math.sqrt(2 / 200), NORMAL),
    (L.init.he_normal, CONVOLUTION, math.sqrt(2 / 480), NORMAL),
    (lambda shape, rng: L.init.he_normal(shape, mode="fan_out", rng=rng), CONVOLUTION, math.sqrt(2 / 960), NORMAL),
    (lambda shape, rng: L.init.he_uniform(shape, a=0.5, rng=rng), MATRIX, math.sqrt(2 / 1.25 / 200), UNIFORM),
    (
        lambda shape, rng: L.init.he_normal(shape, nonlinearity="tanh", rng=rng),
        MATRIX,
        5 / 3 / math.sqrt(200),
        NORMAL,
    ),
]


@pytest.mark.parametrize("number", range(len(DRAWN)))
def test_moments_bounds_and_bits(number: int) -> None:
    draw, shape, std, kurtosis = DRAWN[number]
    values = draw(shape, rng=rng())
    assert type(values) is np.ndarray
    assert values.dtype == np.float32
    assert values.shape == shape
    check_moments(values, 0.0, std, kurtosis)
    if kurtosis == UNIFORM:
        bound = std * math.sqrt(3)
        assert 0.999 * bound <= np.abs(values).max() <= bound * (1 + 1e-6)
    np.testing.assert_array_equal(values, draw(shape, rng=rng()))
    assert not np.array_equal(values, draw(shape, rng=lamella.Generator(4)))


@pytest.mark.parametrize(
    ("mean", "std", "low", "high"),
    [(0, 1, -2, 2), (1, 0.02, 0.97, 1.01), (0, 1, 3, 4), (0, 1, -9, -8), (5, 2, -1, 0), (0, 1, -40, 40)],
)
def test_the_truncated_normal_is_the_normal_given_that_it_lies_between(
    mean: float, std: float, low: float, high: float
) -> None:
    values = L.init.truncated_normal((400, 100), mean, std, low, high, rng=rng())
    assert values.dtype == np.float32
    assert values.min() >= np.float32(low)
    assert values.max() <= np.float32(high)
    z = np.linspace((low - mean) / std, (high - mean) / std, 400_001)  # moments by quadrature
    density = np.exp(-z * z / 2 + (z * z).min() / 2)
    density /= density.sum()
    centre = (density * z).sum()
    spread = math.sqrt((density * (z - centre) ** 2).sum())
    found = (values.astype(np.float64) - mean) / std
    assert abs(found.mean() - centre) <= 5 * spread / 200
    assert abs(found.std() / spread - 1) <= 5 * 1.5 / 200
    probabilities = np.cumsum(density)
    for q in (0.01, 0.25, 0.5, 0.75, 0.99):
        assert abs(np.mean(found <= z[np.searchsorted(probabilities, q)]) - q) <= 5 * math.sqrt(q * (1 - q)) / 200


def test_the_normal_quantile_is_the_standard_librarys() -> None:
    p = np.concatenate([10.0 ** -np.arange(1, 300, 7), 1 - 10.0 ** -np.arange(1, 15), np.linspace(0.001, 0.999, 500)])
    expected = [NormalDist().inv_cdf(value) for value in p]
    np.testing.assert_allclose(normal_quantile(np, p), expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (6, 2, 3, 3), (20, 2, 3), (1, 7)])
def test_rows_or_columns_are_orthonormal_times_the_gain(shape: tuple[int, ...]) -> None:
    values = L.init.orthogonal(shape, gain=1.5, rng=rng())
    assert values.dtype == np.float32
    assert values.shape == shape
    assert values.flags.c_contiguous
    flat = values.reshape(shape[0], -1).astype(np.float64)
    product = flat @ flat.T if shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(product, 2.25 * np.eye(len(product)), atol=1e-6)


def test_orthogonal_matrices_have_no_preferred_sign() -> None:
    generator = rng()
    corners = np.array([L.init.orthogonal((3, 3), rng=generator) for _ in range(2000)])
    assert np.abs(corners.mean(axis=0)).max() <= 5 * math.sqrt(1 / 3 / 2000)
    determinants = np.linalg.det(corners.astype(np.float64))
    assert abs((determinants > 0).mean() - 0.5) <= 5 * 0.5 / math.sqrt(2000)


def test_constants_identity_and_dirac() -> None:
    assert L.init.zeros((2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert L.init.ones((2,)).tolist() == [1, 1]
    assert L.init.constant((2,), 0.5).dtype == np.float32
    assert L.init.identity((2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    x = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)  # channels, length
    kernel = L.init.dirac((6, 4, 3))
    out = sum(kernel[:, :, k] @ np.pad(x, ((0, 0), (1, 1)))[:, k : k + 9] for k in range(3))
    np.testing.assert_array_equal(out[:4], x)
    assert (out[4:] == 0).all()
    assert L.init.dirac((4, 2, 1), groups=2)[:, :, 0].tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_fans_and_gains_are_pytorchs() -> None:
    assert L.init.fans((7, 3)) == (3, 7)
    assert L.init.fans((8, 4, 3, 5)) == (60, 120)
    gains = {"linear": 1, "conv2d": 1, "conv_transpose3d": 1, "sigmoid": 1, "tanh": 5 / 3, "relu": 2**0.5, "selu": 0.75}
    assert {name: L.init.calculate_gain(name) for name in gains} == gains
    assert L.init.calculate_gain("leaky_relu") == math.sqrt(2 / 1.0001)
    assert L.init.calculate_gain("leaky_relu", 0.2) == math.sqrt(2 / 1.04)


def test_layers_start_as_pytorchs_do() -> None:
    layer = L.Linear(200, 300, rng=rng())
    for parameter in (layer.weight, layer.bias):
        bound = 1 / math.sqrt(200)
        assert 0.98 * bound <= np.abs(parameter.to_numpy()).max() <= bound


def test_values_are_assigned_in_place_in_the_parameters_dtype(device: Device) -> None:
    layer = L.Linear(3, 2).to(device, "float64")
    memory = layer.weight.data
    values = L.init.glorot_uniform((2, 3), rng=rng())
    L.init.assign(layer.weight, values)
    assert layer.weight.data is memory
    assert layer.weight.dtype == np.float64
    assert layer.weight.requires_grad
    np.testing.assert_array_equal(layer.weight.to_numpy(), values)
    L.init.assign(layer.weight, layer.weight * 2)
    np.testing.assert_array_equal(layer.weight.to_numpy(), 2 * values)


def test_an_assignment_is_seen_by_the_tape(device: Device) -> None:
    layer = L.Linear(3, 2).to(device)
    x = lamella.tensor(np.ones((4, 3), np.float32), device=device, requires_grad=True)
    loss = layer(x).sum()
    L.init.assign(layer.weight, L.init.ones((2, 3)))
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


ERRORS: list[tuple[Any, str]] = [
    (lambda: L.init.assign(L.Linear(3, 2).weight, L.init.zeros((3, 2))), r"shape \(2, 3\), got \(3, 2\)"),
    (lambda: L.init.fans((3,)), r"at least two axes .* got \(3,\)"),
    (lambda: L.init.orthogonal((3,)), r"at least two axes, got \(3,\)"),
    (lambda: L.init.identity((3,)), r"two axes, got \(3,\)"),
    (lambda: L.init.dirac((3, 3)), r"convolution, .* got \(3, 3\)"),
    (lambda: L.init.dirac((3, 3, 1), groups=2), "divisible by groups, got 3 and groups=2"),
    (lambda: L.init.normal((3,), std=-1.0), "normal: std must not be negative, got -1.0"),
    (lambda: L.init.uniform((3,), 1.0, 0.0), "high must not be below low, got low=1.0, high=0.0"),
    (lambda: L.init.truncated_normal((3,), low=1.0, high=1.0), "high must be above low, got low=1.0, high=1.0"),
    (lambda: L.init.truncated_normal((3,), low=50.0, high=60.0), r"\[50.0, 60.0\] is too far from mean=0.0"),
    (lambda: L.init.he_normal((3, 3), mode="fan"), "mode must be 'fan_in' or 'fan_out', got 'fan'"),
    (lambda: L.init.calculate_gain("gelu"), "nonlinearity must be one of conv1d, .* got 'gelu'"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_name_the_argument_and_the_value(number: int) -> None:
    call, message = ERRORS[number]
    with pytest.raises(ValueError, match=message):
        call()
