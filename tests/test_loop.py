"""The training loop: it learns, repeats itself bit for bit, switches modes, and says where a loss went wrong."""

from __future__ import annotations

import io
import math
import sys
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
    EarlyStopping,
    History,
    TrainingState,
    cosine,
    evaluate,
    fit,
    load,
    load_metadata,
    save,
)

X = Generator(7).normal((60, 2))
Y = (X[:, 0] * X[:, 1] > 0).astype("int64")  # exclusive or: no straight line divides it


def network(seed: int = 0, device: Device | str = "cpu") -> Any:
    rng = Generator(seed)
    layers = (L.Linear(2, 16, rng=rng), L.ReLU(), L.Dropout(0.1, rng=rng.split(1)), L.Linear(16, 2, rng=rng))
    return L.Sequential(*layers).to(device)


def train(model: Any, data: Any = (X, Y), **options: Any) -> History:
    given = {"loss": L.cross_entropy, "optimizer": None, "epochs": 3, "batch_size": 16, "rng": Generator(3)}
    given |= {"progress": False, **options}
    given["optimizer"] = given["optimizer"] or Adam(model.parameters(), lr=0.02)
    return fit(model, data, **given)


def test_it_learns_what_no_line_divides(device: Device) -> None:
    model = network(device=device)
    history = train(model, epochs=40, validation=(X, Y))
    assert len(history) == 40
    assert history["validation_accuracy"][-1] >= 0.9
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert all(seconds > 0 for seconds in history["seconds"])


def test_the_same_seed_gives_the_same_run_bit_for_bit() -> None:
    runs = []
    for _ in range(2):
        model = network()
        history = train(model, validation=(X, Y))
        runs.append((history["loss"], {k: v.tobytes() for k, v in model.state_dict().items()}))
    assert runs[0] == runs[1]
    other = network()
    train(other, rng=Generator(4))
    assert {k: v.tobytes() for k, v in other.state_dict().items()} != runs[0][1]


def test_a_run_resumed_from_a_file_ends_bit_for_bit_where_the_whole_run_ends(tmp_path: Path) -> None:
    def start() -> tuple[Any, Adam, Generator]:
        model = L.Sequential(L.Linear(2, 8, rng=Generator(0)), L.ReLU(), L.Linear(8, 2, rng=Generator(1)))
        return model, Adam(model.parameters(), lr=0.02, weight_decay=0.01), Generator(3)

    model, optimizer, rng = start()
    train(model, optimizer=optimizer, rng=rng, epochs=4)
    whole = model.state_dict()

    model, optimizer, rng = start()
    train(model, optimizer=optimizer, rng=rng, epochs=2)
    save(tmp_path / "model", model.state_dict())
    save(tmp_path / "run", optimizer.state_dict(), {"rng": str(rng.state[1])})

    model, optimizer, rng = start()
    model.load_state_dict(load(tmp_path / "model"))
    optimizer.load_state_dict(load(tmp_path / "run"))
    rng.state = (3, int(load_metadata(tmp_path / "run")["rng"]))
    train(model, optimizer=optimizer, rng=rng, epochs=2)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, whole[name])


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples() -> None:
    x, y = np.array([[1.0], [2.0], [6.0]], "float32"), np.zeros((3, 1), "float32")
    model = L.Linear(1, 1, bias=False)
    model.weight.data[...] = 1.0
    history = train(model, (x, y), loss=L.mse_loss, optimizer=SGD(model.parameters(), lr=0.0), batch_size=2, epochs=1)
    assert history["loss"] == [pytest.approx((1 + 4 + 36) / 3, rel=1e-6)]
    metrics = {"bias": lambda z, t: float((z - t).mean())}
    judged = evaluate(model, (x, y), loss=L.mse_loss, metrics=metrics, batch_size=2)
    assert judged == {"loss": pytest.approx(41 / 3, rel=1e-6), "bias": pytest.approx(3, rel=1e-6)}


def test_training_and_validation_have_their_modes() -> None:
    modes: list[tuple[str, bool]] = []
    model = network()
    forward = model.forward
    model.forward = lambda x: (modes.append(("forward", model.training)), forward(x))[1]
    callback = lambda state: modes.append(("call", state.model.training))  # noqa: E731
    train(model, epochs=2, batch_size=60, validation=(X, Y), callbacks=[callback])
    one = [("forward", True), ("forward", False), ("call", False)]
    assert modes == [("forward", False), *one * 2]  # validation data are tried first
    assert not any(module.training for module in model.modules())


def test_evaluate_puts_the_mode_back_and_records_nothing() -> None:
    model = network().train()
    recorded = {"recorded": lambda logits, labels: float(logits.requires_grad)}
    first, second = (evaluate(model, (X, Y), loss=L.cross_entropy, metrics=recorded) for _ in range(2))
    assert first == second  # dropout is off
    assert first["recorded"] == 0.0
    assert model.training


@pytest.mark.parametrize("position", [0, 49, 50, 59])
def test_a_loss_that_is_not_finite_is_named_by_epoch_and_step(position: int) -> None:
    x = X.copy()
    x[position] = math.nan

    model = network()
    with pytest.raises(FloatingPointError, match=f"got nan in epoch 1, step {position + 1} of 60"):
        fit(
            model, (x, Y), loss=L.cross_entropy, optimizer=SGD(model.parameters(), lr=0.0), epochs=2, batch_size=1,
            rng=InOrder(), progress=False,
        )  # fmt: skip


class InOrder(Generator):
    def permutation(self, length: int) -> Any:
        return np.arange(length)


def test_losses_are_fetched_fifty_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from lamella.backend import backend_for

    fetched: list[int] = []
    backend = backend_for("cpu")
    monkeypatch.setattr(backend, "to_numpy", lambda array: (fetched.append(array.size), array)[1])
    train(network(), epochs=2, batch_size=1)
    assert fetched == [50, 10] * 2


def test_the_schedule_sets_the_rate_of_each_step() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=9.0)
    seen: list[float] = []
    step = optimizer.step
    optimizer.step = lambda: (seen.append(optimizer.lr), step())[1]  # type: ignore[method-assign, assignment]
    rate = cosine(0.1, steps=8, warmup=2)
    train(model, optimizer=optimizer, epochs=2, schedule=rate)
    assert seen == [rate(i) for i in range(8)]


def test_early_stopping_goes_back_to_the_best_epoch() -> None:
    model = network()
    states = []

    def spoil(state: TrainingState) -> None:
        history, model = state.history, state.model
        history.last["validation_loss"] = [5.0, 3.0, 4.0, 4.0, 1.0][len(history) - 1]
        states.append(model.state_dict())

    stop = EarlyStopping(patience=2)
    history = train(model, epochs=5, validation=(X, Y), callbacks=[spoil, stop])
    assert len(history) == 4
    assert (stop.best, stop.best_epoch) == (3.0, 2)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, states[1][name])
    assert any((states[1][name] != states[3][name]).any() for name in states[1])


def test_early_stopping_may_wait_for_a_rise() -> None:
    stop = EarlyStopping(patience=1, monitor="validation_accuracy", maximize=True)
    model, history = network(), History()
    state = TrainingState(model, SGD(model.parameters()), history)
    for value, stops in [(0.5, False), (0.7, False), (0.7, True)]:
        history.epochs.append({"validation_accuracy": value})
        assert stop.on_epoch_end(state) is stops


def test_an_interrupted_run_leaves_its_history_and_can_go_on() -> None:
    model, history = network(), History()

    def interrupt(state: TrainingState) -> None:
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, epochs=9, history=history, callbacks=[interrupt])
    assert len(history) == 2
    assert not model.training
    assert train(model, epochs=1, history=history) is history
    assert len(history) == 3


def test_a_run_that_breaks_in_an_epoch_leaves_the_model_ready_to_predict() -> None:
    model = network()

    def interrupt(logits: Any, labels: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, loss=interrupt)
    assert not any(module.training for module in model.modules())


def test_data_elsewhere_is_moved_to_the_model(device: Device) -> None:
    model = network(device=device)
    history = train(model, (X, lamella.tensor(Y)), validation=(X, Y), epochs=1)
    assert math.isfinite(history["validation_loss"][0])
    assert all(p.device == device for p in model.parameters())


def test_without_a_bar_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    train(network(), epochs=3, validation=(X, Y), progress=True)
    lines = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("epoch 1/3  loss 0.")
    assert "validation accuracy 0." in lines[0]
    assert lines[-1].startswith("epoch 3/3")


def test_in_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    train(network(), epochs=3, progress=True)
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "12/12" in text
    assert "epoch 3/3" in text


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epochs": 0}, ValueError, "fit: epochs must be at least 1, got 0"),
    ({"data": X}, TypeError, r"fit: data must be a pair \(x, y\) of arrays, an iterable .*, got ndarray"),
    ({"data": (X[:0], Y[:0])}, ValueError, "fit: data must hold at least one example"),
    ({"data": (X, Y[:5])}, ValueError, r"same number of examples, got \[60, 5\]"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"validation": (X[:0], Y[:0])}, ValueError, "fit: validation must hold at least one example"),
    ({"callbacks": [EarlyStopping()]}, KeyError, "monitor must be one of loss, seconds.*give validation data"),
]


@pytest.mark.parametrize(("options", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(network(), **options)


def test_patience_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        EarlyStopping(patience=0)
