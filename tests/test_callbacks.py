"""Callbacks and where batches come from: plateaus as PyTorch's, best weights, iterables of batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import Generator
from lamella.backend import Device
from lamella.training import (
    SGD,
    Adam,
    Callback,
    EarlyStopping,
    History,
    ReduceOnPlateau,
    TrainingState,
    batches,
    constant,
    evaluate,
    fit,
)

FROZEN = np.load(Path(__file__).parent / "fixtures/training.npz", allow_pickle=False)  # fixtures/make_training.py
X = Generator(7).normal((40, 3))
Y = (X[:, 0] > 0).astype("int64")


def line(device: Device | str = "cpu") -> Any:
    return L.Sequential(L.Linear(3, 2, rng=Generator(0))).to(device)


def train(model: Any, data: Any = (X, Y), optimizer: Any = None, **options: Any) -> History:
    given = {"loss": L.cross_entropy, "epochs": 3, "batch_size": 8, "rng": Generator(1), "progress": False} | options
    return fit(model, data, optimizer=optimizer or Adam(model.parameters(), lr=0.05), **given)


def state_with(figures: list[dict[str, float]]) -> TrainingState:
    model = line()
    return TrainingState(model, SGD(model.parameters(), lr=0.8), History(figures))


def test_the_rate_falls_on_the_plateaus_where_pytorchs_falls() -> None:
    callback, state = ReduceOnPlateau(0.5, patience=2, cooldown=1, min_lr=0.15), state_with([])
    rates = []
    for figure in FROZEN["plateau figures"].tolist():
        state.history.epochs.append({"validation_loss": figure})
        callback.on_epoch_end(state)
        rates.append(state.optimizer.lr)
    np.testing.assert_allclose(rates, FROZEN["plateau rates"], rtol=1e-12)
    assert len(set(rates)) > 2


def test_a_figure_that_should_rise_has_its_plateau_too() -> None:
    callback, state = ReduceOnPlateau(0.5, patience=0, monitor="a", maximize=True), state_with([])
    for value, rate in [(0.5, 0.8), (0.6, 0.8), (0.6, 0.4), (0.9, 0.4), (0.1, 0.2)]:
        state.history.epochs.append({"a": value})
        callback.on_epoch_end(state)
        assert state.optimizer.lr == pytest.approx(rate)


def test_a_least_rate_above_the_rate_does_not_raise_it() -> None:
    callback, state = ReduceOnPlateau(0.5, patience=0, min_lr=2.0), state_with([{"validation_loss": 1.0}])
    for _ in range(2):
        callback.on_epoch_end(state)
    assert state.optimizer.lr == 0.8


def test_callbacks_are_called_in_order_with_the_state() -> None:
    calls: list[Any] = []

    class Watch(Callback):
        def on_epoch_end(self, state: TrainingState) -> bool:
            calls.append(("epoch", len(state.history), state.step, state.model.training))
            return len(state.history) == 2

        def on_end(self, state: TrainingState) -> None:
            calls.append(("end", state.optimizer.lr))

    train(line(), callbacks=[Watch(), lambda state: calls.append("function")], epochs=9)
    assert calls == [("epoch", 1, 5, False), "function", ("epoch", 2, 10, False), "function", ("end", 0.05)]


@pytest.mark.parametrize(("restore", "best"), [(True, 0), (False, 2)])
def test_after_the_last_epoch_the_best_weights_come_back(restore: bool, best: int) -> None:
    states: list[Any] = []

    def spoil(state: TrainingState) -> None:
        state.history.last["validation_loss"] = float(len(state.history))
        states.append(state.model.state_dict())

    model = line()
    train(model, validation=(X, Y), callbacks=[spoil, EarlyStopping(patience=None, restore=restore)])
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, states[best][name])
    assert (states[0]["0.weight"] != states[2]["0.weight"]).any()


def test_clipping_bounds_each_step() -> None:
    model = line()
    before = model.state_dict()
    train(model, optimizer=SGD(model.parameters(), lr=1.0), clip_norm=0.01, epochs=1)
    moved = math.sqrt(sum(((before[name] - array) ** 2).sum() for name, array in model.state_dict().items()))
    assert 0.0 < moved <= 5 * 0.01 * (1 + 1e-5)


# -- batches that come from elsewhere -------------------------------------------------------------------------------
def test_a_list_of_batches_trains_as_its_arrays(device: Device) -> None:
    class InOrder(Generator):
        def permutation(self, length: int) -> Any:
            return np.arange(length)

    models = [line(device) for _ in range(3)]
    whole = train(models[0], rng=InOrder(), validation=(X, Y))
    pieces = [(X[i : i + 8], lamella.tensor(Y[i : i + 8])) for i in range(0, 40, 8)]
    listed = train(models[1], pieces, validation=pieces)
    made = train(models[2], lambda epoch: iter(pieces), validation=lambda epoch: iter(pieces))
    for history in (listed, made):
        assert history["loss"] == whole["loss"]
        np.testing.assert_allclose(history["validation_loss"], whole["validation_loss"], rtol=1e-6)
        assert history["validation_accuracy"] == whole["validation_accuracy"]


def test_a_function_gets_the_number_of_the_epoch_and_evaluation_is_epoch_zero() -> None:
    epochs: list[int] = []

    def data(epoch: int) -> Any:
        epochs.append(epoch)
        return batches(X, Y, batch_size=8, rng=Generator(0).split(epoch))

    train(line(), data)
    assert epochs == [1, 2, 3]
    evaluate(line(), data, loss=L.cross_entropy)
    assert epochs[3:] == [0]


def test_batches_of_an_iterable_count_by_their_size() -> None:
    pieces = [(X[:30], Y[:30]), (X[30:], Y[30:])]
    judged = evaluate(line(), pieces, loss=L.cross_entropy)
    whole = evaluate(line(), (X, Y), loss=L.cross_entropy, batch_size=40)
    assert judged == {name: pytest.approx(value, rel=1e-6) for name, value in whole.items()}


def test_many_kept_batches_are_looked_at_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    import lamella.training.losses as losses

    looks: list[int] = []
    look = losses.EpochLosses.look
    monkeypatch.setattr(losses, "_MAX_KEPT", 2 * (8 * 3 * 4 + 8 * 8))
    monkeypatch.setattr(losses.EpochLosses, "look", lambda self: (looks.append(len(self._waiting)), look(self))[1])
    train(line(), lambda epoch: batches(X, Y, batch_size=8), epochs=1)
    assert looks == [3, 2]


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data": iter([(X, Y)])}, TypeError, "walked through in every epoch, got list_iterator; give a function"),
    ({"data": [(X, Y, Y)]}, TypeError, r"fit: each batch must be a pair \(x, y\) of arrays or tensors, got tuple"),
    ({"data": [(X, Y[:3])]}, ValueError, "x and y of a batch must have one length, got 40 and 3"),
    ({"data": []}, ValueError, "fit: data must hold at least one example, got none"),
    ({"data": lambda epoch: iter(())}, ValueError, "fit: data must hold at least one example, got none"),
    ({"data": 3}, TypeError, r"fit: data must be a pair \(x, y\) of arrays, an iterable of such batches, .* got int"),
    ({"validation": lambda epoch: iter(())}, ValueError, "evaluate: data must hold at least one example, got none"),
    ({"clip_norm": -1.0}, ValueError, "fit: clip_norm must be above 0, got -1.0"),
    ({"schedule": constant(0.1), "callbacks": [ReduceOnPlateau()]}, ValueError, "must not both set the learning rate"),
    ({"callbacks": [ReduceOnPlateau(monitor="x")]}, KeyError, "ReduceOnPlateau: monitor must be one of loss"),
]


@pytest.mark.parametrize(("options", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(line(), **options)


def test_the_numbers_of_a_plateau_have_their_ranges() -> None:
    with pytest.raises(ValueError, match=r"factor must be above 0 and below 1, got 1.0"):
        ReduceOnPlateau(1.0)
    with pytest.raises(ValueError, match="patience must be at least 0, got -1"):
        ReduceOnPlateau(patience=-1)
