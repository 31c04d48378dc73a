"""Accuracy and confusion matrix, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
from lamella.backend import Device
from lamella.training import accuracy, confusion_matrix, format_confusion_matrix

SCORES = np.array([[2.0, 1.0, 0.0], [0.0, 0.5, 0.5], [-1.0, -2.0, -0.5], [1.0, 3.0, 2.0]], "float32")  # 0, 1, 2, 1
LABELS = np.array([0, 1, 1, 2])


def test_accuracy_is_the_share_of_right_answers(device: Device) -> None:
    scores, labels = lamella.tensor(SCORES, device=device), lamella.tensor(LABELS, device=device)
    assert accuracy(scores, labels) == 0.5
    assert accuracy(lamella.tensor(np.array([0, 1, 2, 2]), device=device), labels) == 0.75
    assert accuracy(scores.data, labels.data) == 0.5
    assert accuracy(scores, LABELS) == 0.5


def test_rows_of_the_confusion_matrix_are_true_classes(device: Device) -> None:
    scores, labels = lamella.tensor(SCORES, device=device), lamella.tensor(LABELS, device=device)
    matrix = confusion_matrix(scores, labels)
    assert type(matrix) is np.ndarray
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 1, 1], [0, 1, 0]])


def test_classes_that_do_not_occur_have_rows_of_zeros() -> None:
    matrix = confusion_matrix(np.array([0, 1]), np.array([1, 1]), 3)
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert confusion_matrix(np.array([4]), np.array([0])).shape == (5, 5)
    assert confusion_matrix(np.zeros(0, int), np.zeros(0, int)).shape == (0, 0)


def test_the_matrix_reads_as_a_table() -> None:
    text = format_confusion_matrix(np.array([[12, 0], [3, 4]]), ["cat", "dog"])
    assert text.split("\n") == [
        "       predicted",
        "true   cat dog",
        " cat    12   ·",
        " dog     3   4",
    ]


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: accuracy(SCORES, LABELS[:3]), ValueError, r"\(N, K, …\) and labels \(N, …\), got \(4, 3\) and \(3,\)"),
    (lambda: accuracy(SCORES, LABELS.astype("float32")), TypeError, "labels must be integers, got float32"),
    (lambda: accuracy(LABELS[:2], LABELS), ValueError, "must have one shape"),
    (lambda: accuracy(LABELS > 1, LABELS), TypeError, "floating scores or integer classes, got bool"),
    (lambda: accuracy(LABELS[:0], LABELS[:0]), ValueError, "at least one example"),
    (lambda: confusion_matrix(LABELS, LABELS, 2), ValueError, r"classes must be in 0 … 1, got 2"),
    (lambda: confusion_matrix(LABELS - 1, LABELS), ValueError, r"got -1"),
    (lambda: format_confusion_matrix(np.eye(2, dtype=int), ["a"]), ValueError, "names must be 2"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
