"""A loss that is not finite is traced to where it arose, and model and optimizer stand as before."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella import Generator
from lamella.backend import Device, backend_of
from lamella.training import SGD, Adam, fit

X = Generator(7).normal((480, 4))
Y = (X[:, 0] > 0).astype("int64")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of overflow and of inf - inf


class Poison(L.Module):
    """Gives NaN where a value is above 50."""

    def forward(self, x: Any) -> Any:
        return x * (math.nan if float(abs(x.data).max()) > 50 else 1.0)


def network(device: Device | str = "cpu", middle: Any = None) -> Any:
    rng = Generator(0)
    layers = [L.Linear(4, 8, rng=rng), middle or L.ReLU(), L.Dropout(0.2, rng=rng.split(1)), L.Linear(8, 2, rng=rng)]
    return L.Sequential(*layers).to(device)


class InOrder(Generator):
    def permutation(self, length: int) -> Any:
        return np.arange(length)


def train(model: Any, x: Any = X, y: Any = Y, optimizer: Any = None, **options: Any) -> Any:
    given = {"loss": L.cross_entropy, "epochs": 1, "batch_size": 8, "rng": InOrder(), "progress": False} | options
    return fit(model, (x, y), optimizer=optimizer or Adam(model.parameters(), lr=0.01), **given)


@pytest.mark.parametrize("position", [0, 3, 49, 50, 57])
def test_the_batch_is_named_and_the_run_stands_before_that_step(position: int, device: Device) -> None:
    x = X.copy()
    x[8 * position + 5, 2] = math.nan
    model = network(device)
    optimizer = Adam(model.parameters(), lr=0.01)
    message = rf"step {position + 1} of 60: x of the batch holds 1 NaN of 32 values"
    with pytest.raises(FloatingPointError, match=message):
        train(model, x, optimizer=optimizer)

    other = network(device)
    twin = Adam(other.parameters(), lr=0.01)
    if position:
        train(other, X[: 8 * position], Y[: 8 * position], optimizer=twin)
    own, others = optimizer.state_dict(), twin.state_dict()
    for name in own:
        np.testing.assert_array_equal(*(backend_of(state[name]).to_numpy(state[name]) for state in (own, others)))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.to_numpy(), q.to_numpy())
    assert model._order[2].rng.state == other._order[2].rng.state


def test_the_first_module_with_a_bad_output_is_named(device: Device) -> None:
    x = X.copy()
    x[8 * 20] = 1e4  # finite, and the module fails on it
    message = r"step 21 of 60: the output of module 1 \(Poison\) holds \d+ NaN of 64 values from finite inputs\. The"
    model = network(device, Poison())
    with pytest.raises(FloatingPointError, match=message):
        train(model, x, optimizer=SGD(model.parameters(), lr=0.0))


def test_the_parameter_that_reaches_far_is_named() -> None:
    model = network()
    model._order[3].weight.data[1, 2] = 3e38
    message = r"step 1 of 60: the output of module 3 \(Linear\) holds .* from finite inputs; of its parameters 3"
    with pytest.raises(FloatingPointError, match=message + r".weight reaches 3e\+38"):
        train(model, X * 100)


def test_a_parameter_that_was_bad_from_the_start_is_named() -> None:
    model = network()
    model._order[3].bias.data[1] = math.inf
    with pytest.raises(FloatingPointError, match=r"step 1 of 60: parameter 3.bias holds 1 infinite of 2 values"):
        train(model)


@lamella.op
def bad_root(x: Any) -> Any:
    """x, with a gradient that is infinite where x is above 50."""
    return x + 0.0, lambda dy: (dy * backend_of(x).xp.where(x > 50, math.inf, 1.0).astype("float32"),)


def test_a_gradient_that_goes_wrong_before_the_loss_is_named_with_its_step() -> None:
    class Root(L.Module):
        def forward(self, x: Any) -> Any:
            return bad_root(x)

    x = X.copy()
    x[8 * 30] = 1e4
    model = network(middle=Root())
    message = r"step 32 of 60: the gradient of 0.bias holds .* of 8 values after a finite loss in step 31\. The model"
    with pytest.raises(FloatingPointError, match=message):
        train(model, x, optimizer=SGD(model.parameters(), lr=1e-9))
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_an_update_that_overflows_is_named_with_its_rate() -> None:
    model = network()
    rate = lambda step: 1e39 if step == 25 else 1e-3  # noqa: E731
    message = r"step 27 of 60: parameter 0.weight holds .* after an update with lr=1e\+39 in step 26"
    with pytest.raises(FloatingPointError, match=message):
        train(model, optimizer=SGD(model.parameters()), schedule=rate)
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_a_loss_function_that_fails_on_good_outputs_is_named() -> None:
    loss = lambda z, t: (z * z).mean() * math.nan  # noqa: E731
    with pytest.raises(FloatingPointError, match="step 1 of 60: the model's output is finite, and the loss func"):
        train(network(), loss=loss)


def test_a_step_that_does_not_fail_again_is_admitted() -> None:
    calls: list[int] = []

    def loss(z: Any, t: Any) -> Any:
        calls.append(1)
        return (z * z).mean() * (math.nan if len(calls) == 7 else 1.0)

    with pytest.raises(FloatingPointError, match=r"step 7 of 60: the same step was finite when it was repeated"):
        train(network(), loss=loss)


def test_batches_of_an_iterable_are_kept_for_it() -> None:
    x = X.copy()
    x[8 * 30] = math.nan
    data = lambda epoch: ((x[i : i + 8], Y[i : i + 8]) for i in range(0, 480, 8))  # noqa: E731
    model = network()
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 31: x of the batch holds 4 NaN of 32 values"):
        fit(model, data, loss=L.cross_entropy, optimizer=Adam(model.parameters()), epochs=1, progress=False)


def test_in_a_later_epoch_the_rates_of_the_schedule_are_repeated() -> None:
    def data(bad: bool) -> Any:
        for_epoch = {1: 10, 2: 9 if bad else 5}
        return lambda epoch: (
            (X[8 * i : 8 * i + 8] * (math.nan if bad and epoch == 2 and i == 5 else 1.0), Y[8 * i : 8 * i + 8])
            for i in range(for_epoch[epoch])
        )

    weights = []
    for bad in (False, True):
        model = network()
        options: dict[str, Any] = {"optimizer": SGD(model.parameters()), "schedule": lambda step: 0.1 / (1 + step)}
        message = "epoch 2, step 6: x of the batch holds 32 NaN"
        with pytest.raises(FloatingPointError, match=message) if bad else contextlib.nullcontext():
            fit(model, data(bad), loss=L.cross_entropy, epochs=2, progress=False, **options)
        weights.append(model._order[0].weight.data.copy())
    np.testing.assert_array_equal(*weights)


def test_without_explanation_there_is_still_the_step() -> None:
    x = X.copy()
    x[8] = math.nan
    with pytest.raises(FloatingPointError, match=r"step 2 of 60; look for NaN in the data"):
        train(network(), x, explain=False)


def test_modules_are_as_before_after_an_explanation() -> None:
    x = X.copy()
    x[8] = math.nan
    model = network()
    own = model._order[0].forward
    replacement = lambda x: x  # noqa: E731
    model._order[1].forward = replacement
    with pytest.raises(FloatingPointError):
        train(model, x)
    assert "forward" not in vars(model._order[0])
    assert model._order[0].forward == own
    assert vars(model._order[1])["forward"] is replacement


def test_a_step_of_fit_waits_for_nothing_between_two_looks() -> None:
    counts = []
    with lamella.testing.simulator() as sim:
        for steps in (20, 40):
            model = network("simulator")
            optimizer = Adam(model.parameters())
            data = [lamella.tensor(a[: 8 * steps], device="simulator") for a in (X, Y)]
            sim.reset()
            train(model, *data, optimizer=optimizer, clip_norm=1.0)
            counts.append(sim.synchronizations)
    assert counts[0] == counts[1]
