"""docs/errata.md: each right formula agrees with the definition or with central differences, and the slip does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import training

PAGE = Path(__file__).resolve().parents[1] / "docs/errata.md"
X = np.array([-2.5, -0.7, -0.1, 0.2, 0.9, 3.0])  # no bend of an activation within a step of these


def slope(f: Callable[[Any], Any], x: Any, h: float = 1e-6) -> Any:
    """df/dx by central differences, of an elementwise function or, for each element of x, of a scalar one."""
    x = np.asarray(x, float)
    if np.shape(f(x)) == x.shape:
        return (f(x + h) - f(x - h)) / (2 * h)
    steps = h * np.eye(x.size).reshape(x.size, *x.shape)
    return np.array([(f(x + step) - f(x - step)) / (2 * h) for step in steps]).reshape(x.shape)


def tape(f: Callable[[Any], Any], x: Any) -> Any:
    """df/dx by lamella, of the sum where f has several results."""
    return lamella.grad(lambda x: f(x).sum())(np.asarray(x, float)).to_numpy()


def close(a: Any, b: Any, atol: float = 1e-6) -> bool:
    return np.shape(a) == np.shape(b) and bool(np.all(np.abs(np.asarray(a) - b) <= atol))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softmax(x: Any) -> Any:
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def missing_tests(page: str, names: set[str]) -> set[str]:
    """What the page names and no test has, and what a test has and the page does not name."""
    titles = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert len(titles) == len(set(titles))
    return {re.sub(r"\W+", "_", title.lower()) for title in titles} ^ names


def test_every_slip_on_the_page_has_a_test_and_a_right_formula() -> None:
    page = PAGE.read_text(encoding="utf-8")
    own = {"every_slip_on_the_page_has_a_test_and_a_right_formula", "planted_title_without_a_test_is_found"}
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")} - own
    assert missing_tests(page, tests) == set()
    for section in page.split("\n### ")[1:]:
        assert section.count("\n- Slip: ") == 1
        assert section.count("\n- Right") == 1


def test_planted_title_without_a_test_is_found() -> None:
    assert missing_tests("# Title\n### Keep and drop\n### Two words\n", {"keep_and_drop"}) == {"two_words"}


# -- layers of numbers ---------------------------------------------------------------------------------------------
def test_bias_of_stacked_linear_layers() -> None:
    first, second = L.Linear(3, 4).to(dtype="float64"), L.Linear(4, 4).to(dtype="float64")
    w1, b1, w2, b2 = (p.data for layer in (first, second) for p in layer.parameters())
    x = draw(5, 3)
    y = second(first(lamella.tensor(x))).to_numpy()
    assert close(x @ (w2 @ w1).T + (w2 @ b1 + b2), y, 1e-13)
    assert not close(x @ (w2 @ w1).T + (b2 + b1), y, 1e-3)


def test_gradient_of_a_linear_layer() -> None:
    x, w, b, dy = draw(5, 3), draw(3, 3, seed=1), draw(3, seed=2), draw(5, 3, seed=3)
    inputs = [lamella.tensor(a, requires_grad=True) for a in (x, w, b)]
    L.linear(*inputs).backward(dy)
    for tensor, right in zip(inputs, (dy @ w, dy.T @ x, dy.sum(axis=0)), strict=True):
        assert close(tensor.grad, right, 1e-13)
    assert close(slope(lambda w: ((x @ w.T + b) * dy).sum(), w), dy.T @ x)
    assert not close(x.T @ dy, dy.T @ x, 1e-3)


def test_parameters_of_a_convolution() -> None:
    for groups in (1, 2):
        layer = L.Conv2d(4, 6, 3, groups=groups)
        assert layer.num_parameters() == 6 * (4 // groups) * 3**2 + 6
        assert layer.num_parameters() != 6 * 3**2 + 6


# -- activations ---------------------------------------------------------------------------------------------------
def test_derivative_of_the_sigmoid() -> None:
    y, right = sigmoid(X), slope(sigmoid, X)
    assert close(y * (1 - y), right)
    assert close(tape(L.sigmoid, X), right)
    assert right.max() <= 0.25
    for slip in (X * (1 - X), sigmoid(y) * (1 - sigmoid(y))):
        assert not close(slip, right, 1e-2)


def test_derivative_of_tanh() -> None:
    y, right = np.tanh(X), slope(np.tanh, X)
    assert close(1 - y**2, right)
    assert close(tape(L.tanh, X), right)
    for slip in (1 - X**2, 1 - np.tanh(y) ** 2):
        assert not close(slip, right, 1e-2)


def test_derivative_of_relu_at_zero() -> None:
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    assert close(slope(relu, [0.0]), [0.5])
    assert close(tape(L.relu, [0.0, -0.0]), [0, 0], 0)
    assert close((X > 0) * 1.0, slope(relu, X))
    assert (np.zeros(3) >= 0).all(), "the slip: ones, where nothing came in"


def test_slope_of_leaky_relu() -> None:
    x = X[X < 0]
    y = L.leaky_relu(x, 0.2).to_numpy()
    assert close(y, 0.2 * x, 1e-15)
    assert close(tape(lambda x: L.leaky_relu(x, 0.2), x), np.full(3, 0.2), 1e-15)
    assert not close(y, -0.2 * x, 1e-2)
    assert close(L.leaky_relu(x).to_numpy(), 0.01 * x, 1e-15)
    assert not close(L.leaky_relu(x).to_numpy(), 0.3 * x, 1e-2)


def test_derivative_of_elu() -> None:
    x, a = X[X < 0], 1.5
    right = slope(lambda x: a * (np.exp(x) - 1), x)
    assert close(a * np.exp(x), right)
    assert close(L.elu(x, a).to_numpy() + a, right)
    assert close(tape(lambda x: L.elu(x, a), x), right)
    assert not close(np.full(3, a), right, 1e-2)


def test_derivative_of_softplus() -> None:
    right = slope(lambda x: np.log1p(np.exp(x)), X)
    assert close(sigmoid(X), right)
    assert close(tape(L.softplus, X), right)
    assert not close(sigmoid(X) * (1 - sigmoid(X)), right, 1e-2)
    assert close(sigmoid(X) * (1 - sigmoid(X)), slope(sigmoid, X))


def test_derivative_of_swish() -> None:
    for beta in (1.0, 2.5):
        right = slope(lambda x: x * sigmoid(beta * x), X)  # noqa: B023 - used at once
        s, y = sigmoid(beta * X), X * sigmoid(beta * X)
        assert close(beta * y + s * (1 - beta * y), right)
        assert close(tape(lambda x: L.swish(x, beta), X), right)  # noqa: B023
        assert close(y + s * (1 - y), right) == (beta == 1)


def test_tanh_approximation_of_gelu() -> None:
    x = np.linspace(-6, 6, 2001)
    exact = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])

    def error(scale: float, cubic: float, power: int = 3) -> float:
        return float(abs(x / 2 * (1 + np.tanh(scale * (x + cubic * x**power))) - exact).max())

    right = error(math.sqrt(2 / math.pi), 0.044715)
    assert right <= 5e-4
    approximate = L.gelu(x, "tanh").to_numpy()
    assert close(approximate, x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), 1e-14)
    assert close(L.gelu(x).to_numpy(), exact, 1e-14)
    for slip in (
        error(math.sqrt(2 * math.pi), 0.044715),
        error(2 / math.pi, 0.044715),
        error(math.sqrt(2 / math.pi), 0.44715),
        error(math.sqrt(2 / math.pi), 0.044715, 1),
    ):
        assert slip > 15 * right


# -- softmax and losses --------------------------------------------------------------------------------------------
def test_jacobian_of_the_softmax() -> None:
    p = softmax(X)
    right = np.array([slope(lambda x, i=i: softmax(x)[i], X) for i in range(6)])
    jacobian = np.diag(p) - np.outer(p, p)
    assert close(jacobian, right)
    assert close(np.array([tape(lambda x, i=i: L.softmax(x)[i], X) for i in range(6)]), right)
    assert close(jacobian.sum(axis=1), np.zeros(6))
    assert not close(np.diag(p * (1 - p)), right, 1e-2)


def test_softmax_of_large_numbers() -> None:
    x = np.float32([89, 88, 0])
    with np.errstate(all="ignore"):
        assert np.isnan(softmax(x)).any()
    right = softmax(x.astype("float64"))
    assert close(softmax(x - x.max()), right)
    assert close(L.softmax(x, axis=-1).to_numpy(), right)


def test_derivative_of_softmax_with_cross_entropy() -> None:
    x, labels = draw(4, 3), np.array([0, 2, 1, 1])
    y, p = np.eye(3)[labels], softmax(draw(4, 3))
    right = slope(lambda x: -(y * np.log(softmax(x))).sum() / 4, x)
    assert close((p - y) / 4, right)
    assert close(tape(lambda x: L.cross_entropy(x, labels), x), right)
    for slip in ((y - p) / 4, (p - y) * p * (1 - p) / 4, p - y):
        assert not close(slip, right, 1e-2)


def test_cross_entropy_takes_logits() -> None:
    logits, labels = 50 * np.eye(10), np.arange(10)  # as sure as can be, and right
    assert L.cross_entropy(logits, labels).item() < 1e-12
    twice = L.cross_entropy(L.softmax(logits, axis=-1), labels).item()
    assert twice == pytest.approx(math.log(math.e + 9) - 1)
    assert twice > 1.4


def test_binary_cross_entropy() -> None:
    x, t = X, np.array([0.0, 1, 0, 1, 1, 0])
    y = sigmoid(x)
    both = -(t * np.log(y) + (1 - t) * np.log(1 - y))
    assert L.binary_cross_entropy(y, t).item() == pytest.approx(both.mean())
    right = slope(lambda x: -(t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x))).sum(), x)
    assert close(y - t, right)
    assert close(tape(lambda x: L.binary_cross_entropy_with_logits(x, t, reduction="sum"), x), right)
    assert (-t * np.log(1 - 1e-12)).sum() < 1e-9, "the slip: no loss for those who always say 1"
    assert L.binary_cross_entropy(np.full(6, 1 - 1e-12), t).item() > 10


def test_half_in_the_squared_error() -> None:
    y, t = draw(6), draw(6, seed=1)
    assert close(slope(lambda y: ((y - t) ** 2).sum() / 2, y), y - t)
    right = slope(lambda y: ((y - t) ** 2).mean(), y)
    assert close(2 * (y - t) / 6, right)
    assert close(tape(lambda y: L.mse_loss(y, t), y), right)
    assert not close(y - t, right, 1e-2)


def test_direction_of_the_kl_divergence() -> None:
    p, q = np.array([[0.5, 0.4, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    right = 0.5 * math.log(5) + 0.4 * math.log(2) + 0.1 * math.log(1 / 7)
    assert (p * np.log(p / q)).sum() == pytest.approx(right)
    assert L.kl_div(np.log(q), p, reduction="sum").item() == pytest.approx(right)
    for slip in (L.kl_div(np.log(p), q, reduction="sum").item(), (q * np.log(q / p)).sum()):
        assert abs(slip - right) > 0.05


def test_cross_entropy_and_entropy() -> None:
    p, q = np.array([0.5, 0.4, 0.1]), np.array([0.1, 0.2, 0.7])
    cross, divergence = -(p * np.log(q)).sum(), (p * np.log(p / q)).sum()
    assert cross == pytest.approx(-(p * np.log(p)).sum() + divergence)
    assert abs(cross - (-(q * np.log(q)).sum() + divergence)) > 0.05
    assert close(slope(lambda q: -(p * np.log(q)).sum(), q), slope(lambda q: (p * np.log(p / q)).sum(), q), 1e-5)


# -- convolution and pooling ---------------------------------------------------------------------------------------
def test_output_size_of_a_convolution() -> None:
    slips = 0
    for n, k, padding, stride, dilation in ((8, 3, 0, 1, 1), (8, 3, 1, 2, 1), (9, 3, 1, 2, 3), (11, 4, 2, 3, 2)):
        starts = range(0, n + 2 * padding, stride)  # by definition: places at which the kernel lies inside
        places = sum(start + dilation * (k - 1) < n + 2 * padding for start in starts)
        assert (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 == places
        y = L.conv1d(np.ones((1, n)), np.ones((1, 1, k)), stride=stride, padding=padding, dilation=dilation)
        assert y.shape[1] == places
        slips += (n - k + 2 * padding) / stride != places
    assert slips == 4


def test_convolution_and_cross_correlation() -> None:
    x, w = draw(9), draw(3, seed=1)
    y = L.conv1d(x[None], w[None, None]).to_numpy()[0]
    assert close(y, [sum(w[k] * x[i + k] for k in range(3)) for i in range(7)], 1e-14)
    assert not close(y, np.convolve(x, w, "valid"), 1e-2)
    assert close(L.conv1d(x[None], w[None, None, ::-1]).to_numpy()[0], np.convolve(x, w, "valid"), 1e-14)


def test_gradient_of_pooling() -> None:
    x = np.array([[[1.0, 5, 2, 2], [0, 3, 1, 2]]])  # two windows; the second has its maximum three times
    assert close(tape(lambda x: L.max_pool2d(x, 2), x), [[[0, 1, 1, 0], [0, 0, 0, 0]]], 0)
    assert close(tape(lambda x: L.avg_pool2d(x, 2), x), np.full((1, 2, 4), 1 / 4), 0)
    assert close(slope(lambda x: x[0, :, :2].max(), x), [[[0, 1, 0, 0], [0, 0, 0, 0]]])
    assert close(slope(lambda x: x[0, :, :2].mean(), x), [[[0.25, 0.25, 0, 0], [0.25, 0.25, 0, 0]]])


# -- normalisation and dropout -------------------------------------------------------------------------------------
def test_variance_in_batch_norm() -> None:
    x = draw(5, 2) * 3 + 1
    norm = L.BatchNorm1d(2, eps=0.0, momentum=1.0).to(dtype="float64")
    y = norm(x).to_numpy()
    biased, unbiased = x.var(axis=0), x.var(axis=0, ddof=1)
    assert close(y, (x - x.mean(axis=0)) / np.sqrt(biased), 1e-12)
    assert not close(y, (x - x.mean(axis=0)) / np.sqrt(unbiased), 1e-2)
    assert close(norm.running_var.to_numpy(), unbiased, 1e-12)
    assert not close(norm.running_var.to_numpy(), biased, 1e-2)


def test_gradient_of_batch_norm() -> None:
    x, dy, weight, eps = draw(6, 2), draw(6, 2, seed=1), np.array([1.5, -0.5]), 1e-5

    def normalised(x: Any) -> Any:
        return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)

    right = slope(lambda x: (dy * weight * normalised(x)).sum(), x)
    scale, xhat = weight / np.sqrt(x.var(axis=0) + eps), normalised(x)
    assert close(scale * (dy - dy.mean(axis=0) - xhat * (dy * xhat).mean(axis=0)), right)
    assert not close(scale * dy, right, 1e-2)
    norm = L.BatchNorm1d(2).to(dtype="float64")
    L.init.assign(norm.weight, weight)
    assert close(tape(lambda x: norm(x) * dy, x), right)
    norm.eval()
    frozen = weight / np.sqrt(norm.running_var.to_numpy() + eps)
    assert close(tape(lambda x: norm(x) * dy, x), frozen * dy, 1e-12)


def test_momentum_of_batch_norm() -> None:
    x, norm = draw(5, 2) + 7, L.BatchNorm1d(2).to(dtype="float64")
    norm(x)
    assert close(norm.running_mean.to_numpy(), 0.9 * 0 + 0.1 * x.mean(axis=0), 1e-12)
    keras, slip = (L.BatchNorm1d(2, momentum=m).to(dtype="float64") for m in (1 - 0.99, 0.99))
    for layer in (keras, slip):
        layer(x)
    wanted = 0.99 * 0 + (1 - 0.99) * x.mean(axis=0)
    assert close(keras.running_mean.to_numpy(), wanted, 1e-12)
    assert not close(slip.running_mean.to_numpy(), wanted, 1)


def test_axes_of_layer_norm() -> None:
    x, norm = draw(5, 4), L.LayerNorm(4, eps=0.0).to(dtype="float64")
    y = norm(x).to_numpy()
    assert close(y, (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True), 1e-12)
    assert close(norm(x[:1]).to_numpy(), y[:1], 1e-12)
    assert not close(y, (x - x.mean(axis=0)) / x.std(axis=0), 1e-2)


def test_keep_and_drop() -> None:
    p, x = 0.2, np.ones(100_000)
    layer = L.Dropout(p, rng=lamella.Generator(0))
    y = layer(lamella.tensor(x)).to_numpy()
    assert (y == 0).mean() == pytest.approx(p, abs=0.01)
    assert close(np.unique(y), [0, 1 / (1 - p)], 1e-12)
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert (y * (1 - p) / p).mean() == pytest.approx(4, abs=0.05), "the slip: kept values divided by p"
    assert close(layer.eval()(lamella.tensor(x)).to_numpy(), x, 0)


# -- initialisation ------------------------------------------------------------------------------------------------
def test_gain_of_glorot() -> None:
    shape, rng = (300, 200), lamella.Generator(0)
    variance = 2 / (300 + 200)
    for values in (L.init.glorot_uniform(shape, rng=rng), L.init.glorot_normal(shape, rng=rng)):
        assert values.var() == pytest.approx(variance, rel=0.02)
    assert abs(L.init.glorot_uniform(shape, rng=rng)).max() == pytest.approx(math.sqrt(6 / 500), rel=1e-3)
    assert rng.uniform(shape, -math.sqrt(variance), math.sqrt(variance)).var() == pytest.approx(variance / 3, rel=0.02)
    assert rng.normal(shape, 0, variance).var() < variance / 100


def test_gain_of_he() -> None:
    x, rng = draw(100, 400).astype("float32"), lamella.Generator(0)
    right = slip = x
    for _ in range(10):
        weight = L.init.he_normal((400, 400), rng=rng)
        right, slip = (L.relu(h @ (gain * weight.T)).to_numpy() for h, gain in ((right, 1.0), (slip, math.sqrt(0.5))))
    assert 0.5 < (right**2).mean() < 2
    assert 0.5 < (slip**2).mean() * 2**10 < 2


# -- attention -----------------------------------------------------------------------------------------------------
def test_scale_of_attention() -> None:
    x, attention = draw(5, 1, 8), L.MultiheadAttention(8, 2, bias=False).to(dtype="float64")
    y, weights = attention(*(lamella.tensor(x),) * 3, average_attn_weights=False)
    projected = np.split(x[:, 0] @ attention.in_proj_weight.data.T, 3, axis=1)
    q, k, v = (part.reshape(5, 2, 4).swapaxes(0, 1) for part in projected)  # (h, T, d)
    right, width, after = (softmax(q @ k.mT / math.sqrt(n)) for n in (4, 8, 1))
    assert close(weights.to_numpy()[0], right, 1e-12)
    assert close(y.to_numpy()[:, 0], (right @ v).swapaxes(0, 1).reshape(5, 8) @ attention.out_proj.weight.data.T, 1e-12)
    assert not close(width, right, 1e-3)
    assert not close(after / math.sqrt(4), right, 1e-2)


def test_axis_of_the_softmax_in_attention() -> None:
    q, k, v = draw(3, 4), draw(6, 4, seed=1), draw(6, 2, seed=2)
    scores = q @ k.T / 2
    y = L.scaled_dot_product_attention(q, k, v).to_numpy()
    assert close(y, softmax(scores) @ v, 1e-12)
    assert close(softmax(scores).sum(axis=1), np.ones(3), 1e-12)
    assert not close(y, softmax(scores.T).T @ v, 1e-2)


def test_masks_in_attention() -> None:
    q, k, v, seen = draw(3, 4), draw(6, 4, seed=1), draw(6, 2, seed=2), np.arange(6) < 4
    scores = q @ k.T / 2
    right = softmax(scores[:, :4]) @ v[:4]  # the masked keys are not there at all
    assert close(softmax(np.where(seen, scores, -np.inf)) @ v, right, 1e-12)
    assert close(L.scaled_dot_product_attention(q, k, v, seen[None]).to_numpy(), right, 1e-12)
    assert not close(softmax(scores * seen) @ v, right, 1e-2)
    assert not close((softmax(scores) * seen) @ v, right, 1e-2)
    assert (softmax(scores * seen)[:, 4:] > 0).all()


def test_exponent_of_sinusoidal_positions() -> None:
    table, t = L.sinusoidal_positions(50, 8), np.arange(50)
    for i in range(4):
        angle = t / 10000 ** (2 * i / 8)
        assert close(table[:, 2 * i], np.sin(angle))
        assert close(table[:, 2 * i + 1], np.cos(angle))
        assert not close(table[:, 2 * i + 1], np.cos(t / 10000 ** ((2 * i + 1) / 8)), 1e-3)
    assert close(table[:, 2] ** 2 + table[:, 3] ** 2, np.ones(50)), "a pair goes round a circle"


# -- optimizers ----------------------------------------------------------------------------------------------------
def walk(make: Callable[[list[lamella.Parameter]], Any], gradients: list[float], start: float = 1.0) -> list[float]:
    """Where a weight is after each step, given its gradients."""
    weight = lamella.Parameter(np.array([start]))
    optimizer, places = make([weight]), []
    for gradient in gradients:
        weight.grad = np.array([gradient])
        optimizer.step()
        places.append(weight.item())
    return places


def adam(
    gradients: list[float], lr: float, *, correct: Callable[[float, int], float], inside: bool = False
) -> list[float]:
    """Adam written out, from 1 on."""
    weight, m, v, places, eps = 1.0, 0.0, 0.0, [], 1e-8
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        mhat, vhat = m / correct(0.9, t), v / correct(0.999, t)
        weight -= lr * mhat / (math.sqrt(vhat + eps) if inside else math.sqrt(vhat) + eps)
        places.append(weight)
    return places


def right_correction(beta: float, t: int) -> float:
    return 1 - beta**t


def test_bias_correction_of_adam() -> None:
    gradients = [0.3, -2.0, 0.7]
    places = walk(lambda p: training.Adam(p, lr=0.1), gradients)
    assert places == pytest.approx(adam(gradients, 0.1, correct=right_correction), abs=1e-12)
    for tiny in (1e-4, 1.0, 1e4):
        assert walk(lambda p: training.Adam(p, lr=0.1), [tiny])[0] == pytest.approx(0.9, abs=1e-4)
    uncorrected = adam(gradients, 0.1, correct=lambda beta, t: 1.0)
    assert (1 - uncorrected[0]) / 0.1 == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-4)
    linear = adam(gradients[:2], 0.1, correct=lambda beta, t: abs(1 - beta * t))
    assert abs(linear[1] - places[1]) > 0.01


def test_epsilon_of_adam() -> None:
    gradients = [1e-5, 1e-5]
    places = walk(lambda p: training.Adam(p, lr=0.1), gradients)
    assert places == pytest.approx(adam(gradients, 0.1, correct=right_correction), abs=1e-12)
    assert places[0] == pytest.approx(0.9, abs=1e-3)
    assert adam(gradients, 0.1, correct=right_correction, inside=True)[0] > 0.98  # a tenth of the step is left


def test_weight_decay_of_adam() -> None:
    gradients, decay, lr = [1.0, -0.5, 2.0], 0.1, 0.01
    apart, penalty = (walk(lambda p, k=kind: k(p, lr=lr, weight_decay=decay), gradients, 3.0)
                      for kind in (training.AdamW, training.Adam))  # fmt: skip
    first = 3 * (1 - lr * decay) - lr  # the step is lr long, whatever the gradient
    assert apart[0] == pytest.approx(first, abs=1e-8)
    assert penalty[0] == pytest.approx(3 - lr, abs=1e-8)
    assert abs(apart[-1] - penalty[-1]) > 1e-3
    plain = walk(lambda p: training.SGD(p, lr=lr, weight_decay=decay), gradients, 3.0)
    assert plain[0] == pytest.approx(3 * (1 - lr * decay) - lr * gradients[0])


def test_momentum_of_gradient_descent() -> None:
    gradients, lr, mu = [1.0, 0.5, -0.2], 0.1, 0.9
    places = walk(lambda p: training.SGD(p, lr=lr, momentum=mu), gradients)
    weight, v, averaged, slow = 1.0, 0.0, 0.0, 1.0
    for place, g in zip(places, gradients, strict=True):
        v = mu * v + g
        weight -= lr * v
        averaged = mu * averaged + (1 - mu) * g
        slow -= lr * averaged
        assert place == pytest.approx(weight)
    assert 1 - slow == pytest.approx((1 - mu) * (1 - weight))
    assert abs(slow - weight) > 0.1

    def with_rates(inside: bool) -> float:
        weight, v = 1.0, 0.0
        for g, rate in zip(gradients, (0.1, 0.01, 0.2), strict=True):
            v = mu * v + (rate * g if inside else g)
            weight -= v if inside else rate * v
        return weight

    optimizer = training.SGD([parameter := lamella.Parameter(np.array([1.0]))], lr=lr, momentum=mu)
    for g, rate in zip(gradients, (0.1, 0.01, 0.2), strict=True):
        optimizer.lr, parameter.grad = rate, np.array([g])
        optimizer.step()
    assert parameter.item() == pytest.approx(with_rates(inside=False))
    assert abs(with_rates(inside=True) - with_rates(inside=False)) > 0.01
