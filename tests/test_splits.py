"""Folds are scikit-learn's for the same order; each example is judged once, by a model that never saw it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.model_selection

import lamella
import lamella.layers as L
from lamella import Generator
from lamella.backend import Device
from lamella.training import (
    SGD,
    Adam,
    CrossValidation,
    KFold,
    StratifiedKFold,
    cross_validate,
    train_validation_test_split,
)

LABELS = np.array([2] * 13 + [0] * 7 + [5] * 24)[np.random.default_rng(0).permutation(44)]


@pytest.mark.parametrize("k", [2, 3, 5, 7])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("kind", [KFold, StratifiedKFold])
def test_folds_are_scikit_learns_for_the_same_order(kind: Any, shuffled: bool, k: int) -> None:
    order = Generator(3).permutation(44) if shuffled else np.arange(44)
    theirs = getattr(sklearn.model_selection, kind.__name__)(k).split(order, LABELS[order])
    ours = list(kind(k, Generator(3) if shuffled else None).split(LABELS, LABELS))
    assert len(ours) == k
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(train, np.sort(order[their_train]))
        np.testing.assert_array_equal(test, np.sort(order[their_test]))
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in ours])), np.arange(44))


def test_labels_of_a_device_give_the_same_folds(device: Device) -> None:
    y = lamella.tensor(LABELS, device=device)
    for (a, b), (c, d) in zip(StratifiedKFold(4).split(y, y), StratifiedKFold(4).split(LABELS, LABELS), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_three_parts_have_their_shares() -> None:
    x = np.arange(100)
    parts = train_validation_test_split(x, validation=0.3, test=0.1, rng=Generator(0), stratify=x % 2)
    assert [len(part) for (part,) in parts] == [60, 30, 10]
    assert [int((part % 2).sum()) for (part,) in parts] == [30, 15, 5]
    np.testing.assert_array_equal(np.sort(np.concatenate([part for (part,) in parts])), x)


class Memory(L.Module):
    """Knows the greatest number that it was trained on."""

    def __init__(self) -> None:
        self.weight = L.Parameter(np.zeros(1, "float32"))
        self.seen: set[float] = set()

    def forward(self, x: Any) -> Any:
        if self.training:
            self.seen |= set(x.data.ravel().tolist())
        return x * 0.0 + self.weight * 0.0


def test_each_example_is_judged_once_by_a_model_that_never_saw_it() -> None:
    models: list[Memory] = []
    seeds: set[tuple[int, int]] = set()
    judged: list[float] = []

    def make(rng: Generator) -> Memory:
        models.append(Memory())
        seeds.add(rng.state)
        return models[-1]

    def new(z: Any, t: Any) -> float:
        values = t.data.ravel().tolist()
        judged.extend(values)
        return float(np.mean([value not in models[-1].seen for value in values]))

    x = np.arange(23, dtype="float32").reshape(-1, 1)
    result = cross_validate(
        make, (x, x), 4, loss=L.mse_loss, optimizer=lambda p: SGD(p), epochs=1, metrics={"new": new}, rng=Generator(0)
    )
    assert result["new"] == [1.0] * 4
    assert sorted(judged) == x.ravel().tolist()
    assert len(models) == len(seeds) == 4


def test_cross_validation_repeats_itself_and_estimates_what_it_should(device: Device) -> None:
    x = Generator(7).normal((60, 2))
    y = (x[:, 0] > 0).astype("int64")
    data = (lamella.tensor(x, device=device), lamella.tensor(y, device=device))
    results = [
        cross_validate(
            lambda rng: L.Sequential(L.Linear(2, 2, rng=rng)).to(device), data, loss=L.cross_entropy,
            optimizer=lambda p: Adam(p, lr=0.1), epochs=15, batch_size=16, rng=Generator(1), stratify=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert results[0] == results[1]
    scores = results[0]["accuracy"]
    assert results[0].mean["accuracy"] == pytest.approx(np.mean(scores))
    assert results[0].mean["accuracy"] > 0.9
    assert len(set(results[0]["loss"])) == 5


def test_mean_variance_and_error_of_four_numbers() -> None:
    result = CrossValidation([{"s": v} for v in (1.0, 2.0, 4.0, 5.0)])
    assert result.mean == {"s": 3.0}
    assert result.variance == {"s": pytest.approx(10 / 3)}
    assert result.standard_error == {"s": pytest.approx((10 / 12) ** 0.5)}
    assert str(result) == "s 3.0000 ± 0.9129"


def test_scikit_learns_splitters_can_be_given() -> None:
    x = np.arange(12, dtype="float32").reshape(-1, 1)
    splitter = sklearn.model_selection.ShuffleSplit(3, random_state=0)
    options: dict[str, Any] = {"loss": L.mse_loss, "optimizer": SGD, "epochs": 1}
    assert len(cross_validate(lambda rng: L.Linear(1, 1, rng=rng), (x, x * 0), splitter, **options).folds) == 3


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: KFold(1), ValueError, "KFold: k must be at least 2, got 1"),
    (lambda: StratifiedKFold(2.0), TypeError, "StratifiedKFold: k must be an integer, got 2.0"),
    (lambda: next(KFold(5).split(np.ones(4))), ValueError, "not be above the number of examples, got 5 > 4"),
    (lambda: next(StratifiedKFold(8).split(LABELS, LABELS)), ValueError, "the smallest class, got 8 > 7"),
    (lambda: next(StratifiedKFold(2).split(LABELS)), TypeError, "y must be the labels, got None"),
    (lambda: next(StratifiedKFold(2).split(LABELS, LABELS[1:])), ValueError, r"each of 44 examples, got \(43,\)"),
    (lambda: train_validation_test_split(LABELS, test=0.9, rng=None), ValueError, "validation=0.2, test=0.9"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
