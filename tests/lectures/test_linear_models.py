"""The claims of ``examples/lectures/linear_models.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor

import lamella
import lamella.layers as L
from lamella import training


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(1), steps=300)


def test_one_gradient_serves_all_four(found: dict[str, Any]) -> None:
    assert len(found) == 4
    for title, one in found.items():
        assert one["gradient_error"] <= 1e-13, title


def test_gradient_descent_finds_the_coefficients_of_statsmodels(found: dict[str, Any]) -> None:
    for title, one in found.items():
        assert one["ours"].shape == one["theirs"].shape
        np.testing.assert_allclose(one["ours"], one["theirs"], rtol=0, atol=1e-3, err_msg=title)


def test_and_those_of_scikit_learn(lecture: ModuleType, found: dict[str, Any]) -> None:
    estimators = {
        "linear": LinearRegression(),
        "logistic": LogisticRegression(C=np.inf, tol=1e-8),
        "softmax": LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000),
        "Poisson": PoissonRegressor(alpha=0, tol=1e-8, max_iter=1000),
    }
    for title, (_, x, y, _, _) in lecture.MODELS.items():
        estimator = estimators[title.partition(":")[0]]
        estimator.fit(np.asarray((x - x.mean(axis=0)) / x.std(axis=0)), y)
        theirs = np.vstack([np.atleast_1d(estimator.intercept_), np.atleast_2d(estimator.coef_).T])
        if theirs.shape[1] > 1:
            theirs = theirs[:, 1:] - theirs[:, :1]
        np.testing.assert_allclose(found[title]["ours"], theirs, rtol=0, atol=1e-3, err_msg=title)


def test_what_is_expected_is_what_is_observed_on_average(found: dict[str, Any]) -> None:
    """With an intercept the canonical links make the residuals add up to 0."""
    for one in found.values():
        assert abs(one["mean"].mean() - np.mean(one["observed"][1])) <= 0.01 * one["mean"].mean()


def test_gaussian_maximum_likelihood_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 1))
    gradients = []
    for loss in (
        lambda eta, y: L.gaussian_nll_loss(eta, y, np.ones((50, 1)), full=True, reduction="sum"),
        lambda eta, y: 0.5 * L.mse_loss(eta, y, reduction="sum") + 25 * np.log(2 * np.pi),
    ):
        weight = lamella.tensor(np.ones((1, 3)), requires_grad=True)
        value = loss(L.linear(x, weight), y)
        value.backward()
        gradients.append(np.append(weight.grad, float(value)))
    np.testing.assert_allclose(*gradients, rtol=1e-12)


def test_the_likeliest_variance_is_the_mean_squared_error() -> None:
    rng = np.random.default_rng(0)
    mean, y = rng.standard_normal((50, 1)), rng.standard_normal((50, 1))
    log_variance = lamella.Parameter(np.zeros((1, 1)))
    optimizer = training.SGD([log_variance], lr=0.5)
    for _ in range(100):
        loss = L.gaussian_nll_loss(mean, y, lamella.exp(log_variance) * np.ones((50, 1)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(np.exp(log_variance.item()), ((y - mean) ** 2).mean(), rtol=1e-6)
