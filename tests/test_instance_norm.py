"""InstanceNorm1d, 2d and 3d against frozen results of PyTorch, in training and evaluation, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for, in_format
from lamella.testing import assert_close

FILE = np.load(Path(__file__).parent / "fixtures" / "instance_norm.npz", allow_pickle=False)
ARRAYS: dict[str, Any] = {name: FILE[name] for name in FILE.files}
CONFIGS = json.loads(str(ARRAYS["configs"]))
STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


BATCHED = [i for i, (layer, _, shape) in enumerate(CONFIGS) if len(shape) == int(layer[-2]) + 2]
CASES = [(i, False) for i in range(len(CONFIGS))] + [(i, True) for i in BATCHED[1::3]]


@pytest.mark.parametrize(("number", "last"), CASES, ids=str)
def test_values_gradients_and_buffers_are_those_of_pytorch(number: int, last: bool, device: Device) -> None:
    layer, options, _ = CONFIGS[number]
    frozen = {name.partition("/")[2]: value for name, value in ARRAYS.items() if name.startswith(f"{number}/")}
    backend = backend_for(device)
    module = getattr(L, layer)(3, **options).to(device)
    state = {name: frozen[name] for name in STATE if name in frozen}
    assert set(module.state_dict()) == set(state)
    module.load_state_dict(state)
    x = lamella.Tensor(in_format(backend.from_numpy(frozen["x"], device), last), requires_grad=True)
    y = module(x)
    y.backward(backend.from_numpy(frozen["dy"], device))
    assert_close(y.data, frozen["y"], rtol=1e-5, atol=2e-6, name="y")
    assert_close(x.grad, frozen["dx"], rtol=1e-4, atol=2e-5 * float(np.abs(frozen["dx"]).max() + 1), name="dx")
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, frozen[f"d{name}"], rtol=2e-5, atol=5e-6, name=f"d{name}")
    for name, buffer in module.state_dict().items():
        if f"after.{name}" not in frozen:
            continue
        assert_close(buffer, frozen[f"after.{name}"], rtol=2e-6, atol=1e-6, name=name)
    with lamella.no_grad():
        assert_close(module.eval()(x).data, frozen["eval"], rtol=1e-5, atol=5e-6, name="eval")


def test_running_statistics_can_be_forgotten() -> None:
    norm = L.InstanceNorm1d(2, track_running_stats=True)
    norm(np.random.default_rng(0).standard_normal((2, 2, 5)).astype(np.float32))
    assert norm.running_mean.to_numpy().any()
    norm.reset_running_stats()
    np.testing.assert_array_equal(norm.running_mean.to_numpy(), [0, 0])
    np.testing.assert_array_equal(norm.running_var.to_numpy(), [1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.InstanceNorm2d(3)(np.ones((2, 4, 2, 2))), r"InstanceNorm2d: x must have shape \(N, 3, H, W\) or"),
        (lambda: L.InstanceNorm1d(3)(np.ones((3, 3, 2, 2))), r"InstanceNorm1d: .*, got \(3, 3, 2, 2\)"),
        (lambda: L.InstanceNorm1d(3)(np.ones((2, 3, 1))), "a channel must have more than one value"),
        (lambda: L.InstanceNorm1d(0), "num_features must be at least 1, got 0"),
        (lambda: L.instance_norm(np.ones((2, 3))), r"with positions, got \(2, 3\)"),
        (lambda: L.instance_norm(np.ones((2, 3, 4)), use_input_stats=False), "must be given without use_input_stats"),
        (lambda: L.instance_norm(np.ones((2, 3, 4)), lamella.tensor([1.0])), "must both be given"),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
