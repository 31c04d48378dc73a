"""Values and gradients of the modules against results of PyTorch, frozen by ``fixtures/make_modules.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for
from lamella.testing import assert_close

FILE = np.load(Path(__file__).parent / "fixtures" / "modules.npz", allow_pickle=False)
ARRAYS: dict[str, Any] = {name: FILE[name] for name in FILE.files}
CONFIGS = json.loads(str(ARRAYS["configs"]))


def test_there_are_enough_configurations() -> None:
    assert len(CONFIGS) >= 80


@pytest.mark.parametrize("number", range(len(CONFIGS)), ids=lambda i: f"{i}-{CONFIGS[i][0]}")
def test_values_and_gradients_are_those_of_pytorch(number: int, device: Device) -> None:
    layer, arguments, options, shapes = CONFIGS[number]
    frozen = {name.partition("/")[2]: value for name, value in ARRAYS.items() if name.startswith(f"{number}/")}
    backend = backend_for(device)

    def here(name: str) -> Any:
        return backend.from_numpy(frozen[name], device)

    module = getattr(L, layer)(*(tuple(a) if isinstance(a, list) else a for a in arguments), **options).to(device)
    names = set(module.state_dict())
    assert names == set(frozen) - {"y", "dy"} - {n for n in frozen if n[0] == "x" or n[:1] == "d"}
    module.load_state_dict({name: frozen[name] for name in names})
    inputs = [
        lamella.Tensor(here(f"x{i}"), requires_grad=frozen[f"x{i}"].dtype.kind == "f") for i in range(len(shapes))
    ]
    y = module(*inputs)
    if y.requires_grad:
        y.backward(here("dy"))

    norm = layer.endswith("Norm")
    # One value a group is normalised to 0, and so it is here; PyTorch is up to 4e-5 away from that.
    alone = norm and np.abs(frozen["dx0"]).max() < 1e-3

    def close(found: Any, name: str) -> None:
        expected = frozen[name]
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        if norm and name.startswith("dx"):  # small differences of numbers as large as dy / sqrt(eps)
            scale = max(scale, 300 * float(np.abs(frozen["dy"]).max(initial=0.0)))
        atol = 1e-4 if alone else 2e-6 * scale
        assert_close(found, expected, rtol=2e-5, atol=atol, name=name)

    close(y.data, "y")
    for i, x in enumerate(inputs):
        if f"dx{i}" in frozen:
            close(x.grad, f"dx{i}")
    for name, parameter in module.named_parameters():
        close(parameter.grad, f"d{name}")
