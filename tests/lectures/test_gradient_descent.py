"""The claims of ``examples/lectures/gradient_descent.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import training


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(1), rates=7)


def distances(lecture: ModuleType, found: dict[str, Any], **options: Any) -> np.ndarray:
    """How far each step is from the least error."""
    path = lecture.descend(found["x"], found["y"], **options)[:, ::2]
    return np.linalg.norm(path - found["best"], axis=1)


def test_descent_converges_below_two_over_the_curvature_only(lecture: ModuleType, found: dict[str, Any]) -> None:
    limit = 2 / found["curvatures"][-1]
    below = distances(lecture, found, optimizer=training.SGD, rate=0.99 * limit, steps=1000)
    above = distances(lecture, found, optimizer=training.SGD, rate=1.01 * limit, steps=1000)
    assert below[-1] <= 1e-5 * below[0]
    assert above[-1] >= 1e5 * above[0]


def test_the_best_rate_and_momentum_shrink_errors_as_they_should(lecture: ModuleType, found: dict[str, Any]) -> None:
    low, high = found["curvatures"]
    slow = distances(lecture, found, optimizer=training.SGD, rate=2 / (low + high))
    factor = (high - low) / (high + low)
    np.testing.assert_allclose(slow[1:] / slow[:-1], factor, rtol=1e-6)  # each step, exactly
    factor = (high**0.5 - low**0.5) / (high**0.5 + low**0.5)
    fast = distances(
        lecture,
        found,
        optimizer=lambda p, lr: training.SGD(p, lr=lr, momentum=factor**2),
        rate=4 / (high**0.5 + low**0.5) ** 2,
        steps=60,
    )
    np.testing.assert_allclose((fast[60] / fast[20]) ** (1 / 40), factor, rtol=0.1)
    assert fast[60] <= 1e-4 * slow[60]


def test_mini_batches_are_right_on_average_and_their_variance_falls_with_their_size(
    lecture: ModuleType, found: dict[str, Any]
) -> None:
    x, y = found["x"], found["y"]
    gradient = lecture.descend(x, y, training.SGD, 0.0, steps=0)[0, 1::2]
    np.testing.assert_allclose(gradient, 2 * np.mean((-x + 2 - y) * np.c_[x, np.ones(256)], axis=0), rtol=1e-12)
    variances = {}
    for size in (1, 16):
        drawn = lecture.descend(x, y, training.SGD, 0.0, size, lamella.Generator(2), steps=1000)[:, 1::2]
        variances[size] = drawn.var(axis=0)
        assert np.all(abs(drawn.mean(axis=0) - gradient) <= 4 * (variances[size] / 1001) ** 0.5)
    np.testing.assert_allclose(variances[1] / variances[16], 16, rtol=0.25)


def test_mini_batches_and_steps_of_one_length_do_not_settle(lecture: ModuleType, found: dict[str, Any]) -> None:
    x, y = found["x"], found["y"]
    tail = lecture.descend(x, y, training.SGD, 0.05, 8, lamella.Generator(3), steps=600)[-200:, ::2]
    assert tail.std(axis=0).min() > 0.01
    path = found["path"]["normalised"]
    np.testing.assert_allclose(np.linalg.norm(np.diff(path, axis=0), axis=1), 0.1, rtol=1e-6)
    assert found["excess"]["all data"][-1] < found["excess"]["normalised"][-10:].max()


def test_adams_first_step_is_the_rate_in_each_direction(found: dict[str, Any]) -> None:
    first = np.diff(found["path"]["Adam"][:2], axis=0).ravel()
    np.testing.assert_allclose(abs(first), 0.1, rtol=1e-6)


def test_the_sweep_shows_where_descent_on_all_data_diverges(found: dict[str, Any]) -> None:
    limit, start = 2 / found["curvatures"][-1], found["excess"]["all data"][0]
    for rate, excess in zip(found["rates"], found["sweep"]["all data"], strict=True):
        assert (excess > start) == (rate > limit)
