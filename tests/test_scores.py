"""Scores: scikit-learn's numbers, on random and on awkward predictions."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as theirs

import lamella
from lamella.backend import Device
from lamella.training import (
    calibration,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    r2_score,
    recall_score,
    top_k_accuracy,
)

RNG = np.random.default_rng(0)
PREDICTIONS = {
    "random": (RNG.integers(0, 4, 50), RNG.integers(0, 4, 50)),
    "two classes": (RNG.integers(0, 2, 20), RNG.integers(0, 2, 20)),
    "a class never predicted": (np.array([0, 0, 1, 1, 0]), np.array([0, 1, 1, 2, 2])),
    "a class never true": (np.array([3, 0, 1, 1, 3]), np.array([0, 0, 1, 1, 0])),
    "a gap": (np.array([0, 5, 5]), np.array([0, 0, 5])),
    "all wrong": (np.array([1, 0]), np.array([0, 1])),
    "one example": (np.array([1]), np.array([1])),
}
SCORES = {
    precision_score: theirs.precision_score,
    recall_score: theirs.recall_score,
    f1_score: theirs.f1_score,
}


@pytest.mark.parametrize("zero_division", [0.0, 1.0])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
@pytest.mark.parametrize("score", SCORES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_scores_are_scikit_learns(name: str, score: Any, average: str, zero_division: float) -> None:
    predicted, labels = PREDICTIONS[name]
    options: dict[str, Any] = {"average": average, "zero_division": zero_division}
    if average == "none":
        options |= {"average": None, "labels": range(max(predicted.max(), labels.max()) + 1)}
    expected = SCORES[score](labels, predicted, **options)
    np.testing.assert_allclose(score(predicted, labels, average, zero_division), expected, rtol=1e-12)


def test_scores_take_logits_and_tensors_of_any_device(device: Device) -> None:
    scores = RNG.normal(size=(30, 4)).astype("float32")
    labels = RNG.integers(0, 4, 30)
    given = [lamella.tensor(a, device=device) for a in (scores, labels)]
    expected = theirs.f1_score(labels, scores.argmax(1), average="macro")
    assert f1_score(*given) == pytest.approx(expected, rel=1e-12)
    assert top_k_accuracy(*given, k=2) == pytest.approx(theirs.top_k_accuracy_score(labels, scores, k=2))
    assert calibration(lamella.layers.softmax(given[0]), given[1]).error == pytest.approx(
        calibration(lamella.layers.softmax(lamella.tensor(scores)), labels).error, rel=1e-6
    )
    x, y = (lamella.tensor(a, device=device) for a in (scores, scores[::-1].copy()))
    assert r2_score(x, y) == pytest.approx(theirs.r2_score(scores[::-1], scores), rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_top_k_accuracy_is_scikit_learns(k: int) -> None:
    scores = np.round(RNG.normal(size=(40, 4)), 1).astype("float32")  # rounded, so that some are equal
    labels = np.concatenate([np.arange(4), RNG.integers(0, 4, 36)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it finds k >= 4 pointless
        expected = theirs.top_k_accuracy_score(labels, scores, k=k)
    assert top_k_accuracy(scores, labels, k) == expected


def test_a_score_that_is_nan_is_never_right() -> None:
    scores = np.array([[math.nan, 1.0, 0.5]], "float32")
    assert top_k_accuracy(scores, np.array([0]), 1) == 0.0
    assert top_k_accuracy(scores, np.array([1]), 1) == 1.0


@pytest.mark.parametrize("shape", [(20,), (20, 3)])
def test_errors_of_numbers_are_scikit_learns(shape: tuple[int, ...]) -> None:
    x, y = RNG.normal(size=shape), RNG.normal(size=shape)
    assert mean_squared_error(x, y) == pytest.approx(theirs.mean_squared_error(y, x), rel=1e-12)
    assert mean_absolute_error(x, y) == pytest.approx(theirs.mean_absolute_error(y, x), rel=1e-12)
    assert r2_score(x, y) == pytest.approx(theirs.r2_score(y, x), rel=1e-12)


@pytest.mark.parametrize("predicted", [[2.0, 2.0, 2.0], [2.0, 2.0, 3.0]])
def test_r2_of_equal_targets_is_scikit_learns(predicted: list[float]) -> None:
    targets = np.full(3, 2.0)
    assert r2_score(np.array(predicted), targets) == theirs.r2_score(targets, predicted)


def test_nan_in_a_prediction_is_nan_in_the_score() -> None:
    x, y = np.array([1.0, math.nan]), np.array([1.0, 1.0])
    assert all(math.isnan(score(x, y)) for score in (mean_squared_error, mean_absolute_error, r2_score))


def test_the_reliability_curve_by_hand() -> None:
    sure = [0.55, 0.6, 0.95, 0.85, 1.0]
    probabilities = np.array([[p, 1 - p] for p in sure])
    found = calibration(probabilities, np.array([0, 1, 0, 1, 0]), bins=5)
    np.testing.assert_array_equal(found.count, [2, 3])  # (0.4, 0.6] and (0.8, 1]
    np.testing.assert_allclose(found.confidence, [0.575, 2.8 / 3])
    np.testing.assert_allclose(found.accuracy, [0.5, 2 / 3])
    assert found.error == pytest.approx(0.4 * 0.075 + 0.6 * (2.8 - 2) / 3)


def test_the_reliability_curve_is_scikit_learns() -> None:
    from sklearn.calibration import calibration_curve

    p = RNG.uniform(0.5, 1.0, 200)
    right = RNG.uniform(size=200) < p
    found = calibration(np.stack([p, 1 - p], 1), np.where(right, 0, 1))
    accuracy, confidence = calibration_curve(right, p, n_bins=10)
    np.testing.assert_allclose(found.accuracy, accuracy)
    np.testing.assert_allclose(found.confidence, confidence)


S, Y = np.ones((3, 2), "float32") / 2, np.array([0, 1, 1])
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: f1_score(Y, Y, average="mean"), ValueError, "f1_score: average must be one of macro, .*, got 'mean'"),
    (lambda: recall_score(Y, Y, zero_division=0.5), ValueError, "recall_score: zero_division must be 0 or 1, got 0.5"),
    (lambda: precision_score(Y[:0], Y[:0]), ValueError, "precision_score: there must be at least one example"),
    (lambda: top_k_accuracy(S, Y, 0), ValueError, "top_k_accuracy: k must be at least 1, got 0"),
    (lambda: top_k_accuracy(Y, Y), TypeError, "top_k_accuracy: scores must be floating, got int64"),
    (lambda: top_k_accuracy(S, Y + 1), ValueError, "labels must be in 0 … 1, got 2"),
    (lambda: top_k_accuracy(S, Y - 1), ValueError, "labels must be in 0 … 1, got -1"),
    (lambda: calibration(S * 4, Y), ValueError, r"in \[0, 1\], got 2 … 2; apply softmax"),
    (lambda: calibration(S * math.nan, Y), ValueError, r"in \[0, 1\], got nan … nan"),
    (lambda: calibration(S, Y, bins=0), ValueError, "calibration: bins must be at least 1, got 0"),
    (lambda: r2_score(S[:1], S[:1]), ValueError, r"N at least 2, got \(1, 2\)"),
    (lambda: mean_squared_error(S, Y), ValueError, r"one shape, got \(3, 2\) and \(3,\)"),
    (lambda: mean_absolute_error(S[:0], S[:0]), ValueError, "at least one example"),
    (lambda: mean_absolute_error([1.0], [1.0]), TypeError, "mean_absolute_error: predicted must be an array"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("score", SCORES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_classes_with_great_numbers_score_as_small_ones(score: Any, name: str, average: str) -> None:
    predicted, labels = PREDICTIONS[name]
    great = [np.where(a > 0, a + 10**12, a) for a in (predicted, labels)]
    assert score(*great, average=average) == pytest.approx(score(predicted, labels, average=average), rel=1e-14)


def test_a_class_of_a_great_number_has_its_place() -> None:
    found = recall_score(np.array([10**6, 3]), np.array([10**6, 4]), average="none")
    assert found.shape == (10**6 + 1,)
    assert np.flatnonzero(found).tolist() == [10**6]
    with pytest.raises(ValueError, match=r"recall_score: for average='none' classes must be below 10000000, got 10000"):
        recall_score(np.array([10**12]), np.array([0]), average="none")
