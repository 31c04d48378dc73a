"""Laws that every layer and loss keeps, run over one complete table, on every device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for


def values(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 normal numbers, none of them near 0, where a kink would spoil the central differences."""
    x = np.random.default_rng(seed).standard_normal(shape)
    return (x + np.sign(x) * 0.05).astype(np.float32)


@dataclass
class Case:
    """A module: how to make it, what it is called with, and the shape that comes out."""

    make: Callable[[], L.Module]
    inputs: tuple[np.ndarray, ...]
    shape: tuple[int, ...]


def rng() -> lamella.Generator:
    return lamella.Generator(7)


LABELS = np.array([0, 3, 1])
CASES: dict[str, Case] = {
    "CrossEntropyLoss": Case(L.CrossEntropyLoss, (values(3, 4), LABELS), ()),
    "Dropout": Case(lambda: L.Dropout(0.4, rng=rng()), (values(3, 4),), (3, 4)),
    "Linear": Case(lambda: L.Linear(4, 5, rng=rng()), (values(3, 4),), (3, 5)),
    "MSELoss": Case(L.MSELoss, (values(3, 4), values(3, 4, seed=1)), ()),
    "ReLU": Case(L.ReLU, (values(3, 4),), (3, 4)),
    "Sequential": Case(
        lambda: L.Sequential(L.Linear(4, 3, rng=rng()), L.Tanh(), L.Linear(3, 2, rng=rng())), (values(3, 4),), (3, 2)
    ),
    "Sigmoid": Case(L.Sigmoid, (values(3, 4),), (3, 4)),
    "Softmax": Case(L.Softmax, (values(3, 4),), (3, 4)),
    "Tanh": Case(L.Tanh, (values(3, 4),), (3, 4)),
}
ABSTRACT = {"Module", "Buffer", "Parameter"}

cases = pytest.mark.parametrize("name", CASES)


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def call(module: L.Module, inputs: tuple[Any, ...]) -> Any:
    """The module's result; one with a random stream starts the same stream at each call."""
    for part in module.modules():
        if isinstance(part, L.Dropout):
            part.rng.state = (7, 0)
    return module(*inputs)


def test_the_table_is_complete() -> None:
    modules = {n for n in L.__all__ if isinstance(getattr(L, n), type) and issubclass(getattr(L, n), L.Module)}
    assert set(CASES) == modules - ABSTRACT


@cases
def test_gradients_of_every_input_and_parameter_agree_with_central_differences(name: str, device: Device) -> None:
    case = CASES[name]
    module = case.make().to(device, dtype="float64")
    inputs = [on(device, x.astype(np.float64) if x.dtype == np.float32 else x) for x in case.inputs]
    gradcheck(lambda *xs: call(module, xs), *inputs)

    for parameter in module.parameters():

        def loss(p: Any, parameter: Any = parameter) -> Any:
            before, parameter.data = parameter.data, p.data
            edge, parameter._edge = parameter._edge, p._edge if not p.is_leaf else parameter._edge
            try:
                y = call(module, tuple(inputs))
                return (y * y).sum()
            finally:
                parameter.data, parameter._edge = before, edge

        parameter.grad = None
        loss(parameter).backward()
        assert parameter.grad is not None
        found = backend_for(device).to_numpy(parameter.grad)
        flat = backend_for(device).to_numpy(parameter.data).copy()
        for index in np.ndindex(flat.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = flat.copy()
                moved[index] += step
                with lamella.no_grad():
                    sides.append(float(loss(lamella.Tensor(on(device, moved)))))
            expected = (sides[0] - sides[1]) / 2e-6
            assert abs(found[index] - expected) <= 1e-7 + 1e-5 * abs(expected), (index, found[index], expected)


@cases
def test_dtype_device_and_inputs_are_kept(name: str, device: Device) -> None:
    case = CASES[name]
    module = case.make().to(device)
    inputs = tuple(on(device, x) for x in case.inputs)
    y = call(module, inputs)
    assert y.shape == case.shape
    assert y.dtype == np.float32
    assert y.device == device
    for x, before in zip(inputs, case.inputs, strict=True):
        np.testing.assert_array_equal(backend_for(device).to_numpy(x), before)


@cases
def test_the_same_numbers_on_every_device(name: str, device: Device) -> None:
    case = CASES[name]
    here = call(case.make(), case.inputs).to_numpy()
    there = call(case.make().to(device), tuple(on(device, x) for x in case.inputs)).to_numpy()
    np.testing.assert_allclose(there, here, rtol=2e-6, atol=1e-7)


@cases
def test_state_makes_the_round_trip_and_two_of_one_seed_are_equal(name: str, device: Device) -> None:
    case = CASES[name]
    one, other = case.make().to(device), case.make().to(device)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a.to_numpy(), b.to_numpy())
        with lamella.no_grad():
            b[...] = 0.0
    assert other.load_state_dict(one.state_dict()) == ([], [])
    inputs = tuple(on(device, x) for x in case.inputs)
    np.testing.assert_array_equal(call(one, inputs).to_numpy(), call(other, inputs).to_numpy())


@cases
def test_train_and_eval_reach_every_part(name: str) -> None:
    module = CASES[name].make()
    assert all(part.training for part in module.modules())
    assert not any(part.training for part in module.eval().modules())
    assert all(part.training for part in module.train().modules())


@cases
def test_an_empty_batch_works_wherever_a_result_exists(name: str, device: Device) -> None:
    case = CASES[name]
    module = case.make().to(device)
    inputs = tuple(on(device, x[:0]) for x in case.inputs)
    if name.endswith("Loss"):
        module.reduction = "none"
    x = lamella.Tensor(inputs[0], requires_grad=True)
    y = call(module, (x, *inputs[1:]))
    assert y.shape[0] == 0
    y.sum().backward()
    assert x.grad.shape == inputs[0].shape


@cases
def test_repr_names_the_layer(name: str) -> None:
    assert repr(CASES[name].make()).startswith(name + "(")
