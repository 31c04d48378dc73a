"""The claims of ``examples/lectures/double_descent.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella


def test_a_fifth_of_the_training_labels_is_drawn_anew_and_no_test_label(lecture: ModuleType) -> None:
    images, labels = lamella.training.digits()
    known = {(image - images.mean(axis=0)).tobytes(): label for image, label in zip(images, labels, strict=True)}
    x, y, x_test, y_test = lecture.noisy_digits(lamella.Generator(0), 700)
    wrong = [known[image.tobytes()] != target.argmax() for image, target in zip(x, y, strict=True)]
    assert abs(np.mean(wrong) - 0.2 * 0.9) <= 4 * np.sqrt(0.18 * 0.82 / 700)  # a label drawn anew is right in a tenth
    assert all(known[image.tobytes()] == target.argmax() for image, target in zip(x_test, y_test, strict=True))
    assert not {image.tobytes() for image in x} & {image.tobytes() for image in x_test}
    assert (y.sum(axis=1) == 1).all()


def test_least_squares_on_random_features_interpolates_from_p_equal_n_on(lecture: ModuleType) -> None:
    rng = lamella.Generator(1)
    data = lecture.noisy_digits(rng, 60)
    below, at, beyond = (
        [lecture.random_features(rng.split(seed, p), data, p) for seed in range(3)] for p in (45, 60, 400)
    )
    assert min(run[0] for run in below) > 1e-3
    assert max(run[0] for run in at + beyond) <= 1e-12
    for left, peak, right in zip(below, at, beyond, strict=True):
        assert peak[1] > 2 * left[1] > 2 * right[1]  # test error
        assert peak[2] > 2 * left[2] > 2 * right[2]  # norm of the weights


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(0), units=(2, 5, 8, 10, 13, 30, 200))


@pytest.mark.slow
def test_the_test_error_peaks_at_the_threshold_and_ends_below_the_best_before_it(found: dict[str, Any]) -> None:
    curves = found["random features"]
    train, test, norm = np.moveaxis(curves["errors"], 2, 0)  # (seeds, widths) each
    widths = np.array(curves["size"])
    assert sum(widths[test.argmax(axis=1)] == 200) >= 4
    assert sum(widths[norm.argmax(axis=1)] == 200) >= 4
    assert train[:, widths < 200].min() > 1e-3
    assert train[:, widths >= 200].max() <= 1e-6
    mean = test.mean(axis=0)
    assert (np.diff(mean[widths >= 200]) < 0).all()
    assert mean[-1] < mean[widths < 200].min()


@pytest.mark.slow
def test_trained_networks_peak_near_as_many_weights_as_equations(found: dict[str, Any]) -> None:
    curves = found["trained hidden units"]
    train, test = np.median(curves["errors"], axis=0).T
    units = np.array(curves["size"])
    peak = units[test.argmax()]
    assert curves["threshold"] / 2 <= peak <= curves["threshold"] * 2
    assert test.max() > 2 * max(test[0], test[-1])
    assert train[units < curves["threshold"] / 2].min() > 0.02 > 1e-3 > train[units > curves["threshold"]].max()
