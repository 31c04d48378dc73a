"""Laws that every layer and loss keeps, run over one complete table, on every device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for

from . import cases_activations, cases_images, cases_losses, cases_modules

CASES = {**cases_activations.CASES, **cases_losses.CASES, **cases_modules.CASES, **cases_images.CASES}
NOT_CALLED = {"Module", "ModuleDict", "ModuleList", "ParameterList"}

cases = pytest.mark.parametrize("name", CASES)


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def call(module: L.Module, inputs: tuple[Any, ...]) -> Any:
    """The module's result; one with a random stream starts the same stream at each call."""
    for part in module.modules():
        if isinstance(stream := getattr(part, "rng", None), lamella.Generator):
            stream.state = (7, 0)
    y = module(*inputs)
    y = y[0] if isinstance(y, tuple) else y  # what comes beside the result has tests of its own
    return y if isinstance(y, lamella.Tensor) else lamella.Tensor(y)  # Identity gives back what it is given


def test_the_table_is_complete() -> None:
    modules = {n for n in L.__all__ if isinstance(getattr(L, n), type) and issubclass(getattr(L, n), L.Module)}
    assert set(CASES) == modules - NOT_CALLED


@cases
def test_gradients_of_every_input_and_parameter_agree_with_central_differences(name: str, device: Device) -> None:
    case = CASES[name]
    module = case.make().to(device, dtype="float64")
    inputs = [on(device, x.astype(np.float64) if x.dtype == np.float32 else x) for x in case.inputs]
    if any(x.dtype.kind == "f" for x in case.inputs):
        gradcheck(lambda *xs: call(module, xs), *inputs, rtol=1e-6, atol=1e-8)

    def loss() -> Any:
        y = call(module, tuple(inputs))
        return (y * y).sum()

    parameters = dict(module.named_parameters())
    module.zero_grad()
    if parameters:
        loss().backward()
    backend = backend_for(device)
    for path, parameter in parameters.items():
        found, before = backend.to_numpy(parameter.grad), parameter.data
        for index in list(np.ndindex(parameter.shape))[:: -(-parameter.size // case.tried) or 1]:
            sides = []
            for step in (1e-6, -1e-6):
                moved = backend.to_numpy(before).copy()
                moved[index] += step
                parameter.data = on(device, moved)
                with lamella.no_grad():
                    sides.append(float(loss()))
            parameter.data = before
            expected = (sides[0] - sides[1]) / 2e-6
            assert abs(found[index] - expected) <= 1e-8 + 1e-6 * abs(expected), (path, index, found[index], expected)


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
    if name.startswith("BatchNorm"):
        module.eval()  # a batch of nothing has no statistics
    differentiable = case.inputs[0].dtype.kind == "f"
    x = lamella.Tensor(inputs[0], requires_grad=differentiable)
    y = call(module, (x, *inputs[1:]))
    assert y.shape[0] == 0
    y.sum().backward()
    if differentiable:
        assert x.grad.shape == inputs[0].shape


@cases
def test_repr_names_the_layer(name: str) -> None:
    assert repr(CASES[name].make()).startswith(name + "(")
