"""The claims of ``examples/lectures/dropout_batch_norm.py``."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

import lamella
import lamella.layers as L


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_adds_noise_of_x2_p_over_1_minus_p(p: float) -> None:
    x = np.full(200_000, 3.0, "float32")
    y = L.dropout(x, p, rng=lamella.Generator(0)).to_numpy()
    np.testing.assert_allclose(np.unique(y), [0, 3 / (1 - p)], rtol=1e-6)
    assert (y == 0).mean() == pytest.approx(p, abs=5e-3)
    variance = 9 * p / (1 - p)
    assert abs(y.mean(dtype=float) - 3) <= 4 * np.sqrt(variance / x.size)
    assert y.var(dtype=float) == pytest.approx(variance, rel=0.02)


def test_dropout_does_nothing_in_evaluation() -> None:
    x, layer = np.arange(12.0).reshape(3, 4), L.Dropout(0.5, rng=lamella.Generator(0))
    assert not np.array_equal(layer(lamella.tensor(x)).to_numpy(), x)
    np.testing.assert_array_equal(layer.eval()(lamella.tensor(x)).to_numpy(), x)


def test_batch_norm_depends_on_the_batch_in_training_only() -> None:
    x = np.random.default_rng(0).normal(5, 2, (64, 3))
    norm = L.BatchNorm1d(3).to(dtype="float64")
    y = norm(x).to_numpy()
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=0), 1, rtol=1e-4)
    assert abs(norm(x[:2]).to_numpy()[0] - y[0]).max() > 0.1
    norm.eval()
    np.testing.assert_allclose(norm(x[:2]).to_numpy(), norm(x).to_numpy()[:2], rtol=1e-14)


def test_the_running_statistics_come_to_those_of_the_data(lecture: ModuleType) -> None:
    found = lecture.measure(rng=lamella.Generator(0), seeds=1, epochs=1, descent=1, rates=(0.1,))
    # 1 - 0.9**k of the way after k batches; what is left is the noise of about 19 batches' mean, 64 numbers each
    way = 1 - 0.9 ** np.arange(1, 101)
    noise = 2 / np.sqrt(64 * 19)
    assert abs(found["mean"] - 5 * way).max() <= 5 * noise
    assert abs(found["variance"] - (4 * way + 0.9 ** np.arange(1, 101))).max() <= 5 * np.sqrt(2) * 2 * noise
    assert set(np.unique(found["dropped"])) == {0, 2}


@pytest.mark.slow
def test_dropout_leaves_fewer_wrong_labels_learned_and_more_new_digits_right(lecture: ModuleType) -> None:
    for seed in range(3):
        (learned, right), (learned_less, more_right) = (
            lecture.regularised(lamella.Generator(seed), p, 100) for p in (0.0, 0.5)
        )
        assert learned > 0.98
        assert learned_less < 0.85
        assert more_right > right + 0.03


@pytest.mark.slow
def test_nine_layers_learn_at_many_rates_with_batch_norm_only(lecture: ModuleType) -> None:
    for lr in (0.01, 0.1, 1.0):
        without, with_norm = (lecture.losses(lamella.Generator(0), norm, lr, 4) for norm in (False, True))
        assert min(without) > 2.25
        assert with_norm[-1] < 1.5
