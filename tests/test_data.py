"""Batches and splits: every example once, in an order that the generator alone decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
from lamella import Generator
from lamella.backend import Device
from lamella.training import batches, cosine, decay_by_step, split


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 30])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_example_comes_once_with_its_label(length: int, shuffled: bool, device: Device) -> None:
    x = lamella.tensor(np.arange(3 * length, dtype="float32").reshape(length, 3), device=device)
    y = lamella.tensor(np.arange(length), device=device)
    seen = []
    for inputs, labels in batches(x, y, batch_size=10, rng=Generator(1) if shuffled else None):
        assert inputs.device == labels.device == device
        assert inputs.dtype == "float32"
        assert labels.dtype == "int64"
        np.testing.assert_array_equal(inputs.to_numpy()[:, 0], 3 * labels.to_numpy())
        seen.append(labels.to_numpy())
    assert [len(part) for part in seen] == [10] * (length // 10) + [length % 10] * (length % 10 > 0)
    order = np.concatenate(seen) if seen else np.arange(0)
    np.testing.assert_array_equal(np.sort(order), np.arange(length))
    np.testing.assert_array_equal(order, Generator(1).permutation(length) if shuffled else np.arange(length))


def test_a_second_pass_has_another_order() -> None:
    rng = Generator(0)
    first, second = (np.concatenate([b.data for (b,) in batches(np.arange(50), batch_size=7, rng=rng)]) for _ in "12")
    assert (first != second).any()


def test_a_short_last_batch_can_be_left_out() -> None:
    assert [len(b) for (b,) in batches(np.arange(23), batch_size=10, drop_last=True)] == [10, 10]
    assert [len(b) for (b,) in batches(np.arange(20), batch_size=10, drop_last=True)] == [10, 10]


def test_batches_in_order_are_views() -> None:
    x = np.arange(6.0)
    (first,), _ = batches(x, batch_size=3)
    assert np.shares_memory(first.data, x)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: batches(np.ones(3), np.ones(4), batch_size=2), ValueError, r"same number of examples, got \[3, 4\]"),
    (lambda: batches(np.ones(3), [1, 2, 3], batch_size=2), TypeError, "argument 1 must be an array or a tensor"),
    (lambda: batches(np.ones(3), batch_size=0), ValueError, "batch_size must be at least 1, got 0"),
    (lambda: batches(np.ones(3), batch_size=2.0), TypeError, "batch_size must be an integer, got 2.0"),
    (lambda: batches(np.array(1.0), batch_size=2), ValueError, "argument 0 must have an axis of examples"),
    (lambda: batches(batch_size=2), ValueError, "at least one array must be given"),
    (lambda: split(np.ones(4), fractions=(0.5, 0.4), rng=None), ValueError, r"sum to 1, got \(0.5, 0.4\)"),
    (lambda: split(np.ones(4), fractions=(1.5, -0.5), rng=None), ValueError, "each be above 0"),
    (lambda: split(np.ones(4), fractions=(0.95, 0.05), rng=None), ValueError, "0.05 of 4 examples is an empty"),
    (lambda: split(np.ones(4), fractions=(0.5, 0.5), rng=None, stratify=np.ones(3)), ValueError, "each of 4 examples"),
    (lambda: cosine(0.1, steps=5, warmup=5), ValueError, "below steps, got warmup=5, steps=5"),
    (lambda: decay_by_step(0.1, every=0), ValueError, "every must be at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named_at_once(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("stratified", [False, True])
def test_parts_of_a_split_are_disjoint_and_complete(stratified: bool, device: Device) -> None:
    y = np.arange(101) % 3
    x = lamella.tensor(np.arange(101, dtype="float32"), device=device)
    parts = split(x, y, fractions=(0.6, 0.2, 0.2), rng=Generator(5), stratify=y if stratified else None)
    assert [len(part[0]) for part in parts] == [61, 20, 20]
    for xs, ys in parts:
        assert isinstance(xs, lamella.Tensor)
        assert xs.device == device
        assert isinstance(ys, np.ndarray)
        np.testing.assert_array_equal(xs.to_numpy() % 3, ys)
    everything = np.concatenate([xs.to_numpy() for xs, _ in parts])
    np.testing.assert_array_equal(np.sort(everything), np.arange(101))
    assert (everything != np.arange(101)).any()


def test_a_stratified_split_gives_each_part_its_share_of_every_class() -> None:
    labels = np.repeat([3, 5, 8], [200, 40, 10])
    for (part,) in split(labels, fractions=(0.5, 0.3, 0.2), rng=Generator(0), stratify=labels):
        share = len(part) / len(labels)
        for label, count in [(3, 200), (5, 40), (8, 10)]:
            assert abs((part == label).sum() - share * count) <= 1


def test_a_small_stratified_split_gives_each_part_its_share_of_every_class() -> None:
    y = np.array([2, 0, 1, 3, 3, 3])
    (train,), (test,) = split(y, fractions=(0.7, 0.3), rng=None, stratify=y)
    assert (len(train), len(test)) == (4, 2)
    assert (train == 3).sum() == 2


def test_any_stratified_split_gives_each_part_its_share_of_every_class() -> None:
    rng, seen = np.random.default_rng(0), 0
    for trial in range(2000):
        k = int(rng.integers(2, 4 if trial % 2 else 8))
        y = rng.integers(0, rng.integers(1, 12), rng.integers(k, 80))
        weights = rng.integers(1, 9, k).astype(float) if trial % 3 else rng.random(k) + 0.05
        fractions = weights / weights.sum()
        x = np.arange(len(y))
        if fractions.min() * len(y) < 2:  # else a part may be empty
            continue
        plain = split(x, fractions=fractions, rng=None)
        parts = split(x, y, fractions=fractions, rng=Generator(trial), stratify=y)
        seen += 1
        np.testing.assert_array_equal(np.sort(np.concatenate([xs for xs, _ in parts])), x)
        for fraction, (xs, ys), (without,) in zip(fractions, parts, plain, strict=True):
            np.testing.assert_array_equal(y[xs], ys)
            assert abs(len(xs) - len(without)) <= (k > 3)
            for label in np.unique(y):
                assert abs((ys == label).sum() - fraction * (y == label).sum()) <= 1 + 1e-9
    assert seen > 500


def test_a_split_without_generator_keeps_the_order() -> None:
    (first,), (second,) = split(np.arange(10), fractions=(0.7, 0.3), rng=None)
    np.testing.assert_array_equal(np.concatenate([first, second]), np.arange(10))


def test_cosine_rises_and_falls() -> None:
    rate = cosine(0.8, steps=12, warmup=4, final=0.2)
    assert [rate(0), rate(3), rate(4), rate(12), rate(99)] == pytest.approx([0.2, 0.8, 0.8, 0.2, 0.2])
    assert rate(8) == pytest.approx(0.5)


def test_decay_by_step_falls_at_every_step_given() -> None:
    rate = decay_by_step(1.0, every=3, factor=0.5)
    assert [rate(step) for step in (0, 2, 3, 6)] == [1.0, 1.0, 0.5, 0.25]
