"""Attention and recurrence against results of PyTorch, frozen by ``fixtures/make_sequences.py``."""

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

FILE = np.load(Path(__file__).parent / "fixtures" / "sequences.npz", allow_pickle=False)
ARRAYS: dict[str, dict[str, Any]] = {}
for path in FILE.files:
    number, _, what = path.partition("/")
    ARRAYS.setdefault(number, {})[what] = FILE[path]
CONFIGS = json.loads(str(FILE["configs"]))
ATTENTION = "scaled_dot_product_attention"


def test_there_are_enough_configurations() -> None:
    assert len(CONFIGS) >= 110


def configurations() -> list[Any]:
    """Their numbers: a part of those of attention and the first of each of the Transformer's layers are quick."""
    found, seen = [], set()
    for i, config in enumerate(CONFIGS):
        layer = config["layer"]
        slow = layer in seen if layer.startswith("Transformer") else "ttention" in layer and i % 5 > 1
        seen.add(layer)
        found.append(pytest.param(i, id=f"{i}-{layer}", marks=[pytest.mark.slow] if slow else []))
    return found


@pytest.mark.parametrize("number", configurations())
def test_values_and_gradients_are_those_of_pytorch(number: int, device: Device) -> None:
    config, frozen = CONFIGS[number], ARRAYS[str(number)]
    layer, call = config["layer"], dict(config["call"])
    backend = backend_for(device)
    leaves: dict[str, Any] = {}

    def here(name: str, wants: bool = False) -> Any:
        array = backend.from_numpy(frozen[name], device)
        if f"d {name}" not in frozen:
            return array
        return leaves.setdefault(name, lamella.Tensor(array, requires_grad=True))

    module = None
    if layer != ATTENTION:
        module = getattr(L, layer)(*config["arguments"], **config["options"])
        names = {name.removeprefix("parameter ") for name in frozen if name.startswith("parameter ")}
        assert set(module.state_dict()) == names
        if layer.startswith("Transformer"):
            module.eval()
        module.load_state_dict({name: frozen[f"parameter {name}"] for name in names})
        module.to(device)
    inputs = [here(f"x{i}") for i in range(len(config["shapes"]))]
    for name, value in call.items():
        if isinstance(value, str):
            call[name] = here(name)
            if layer == ATTENTION and value.startswith("bool"):
                call[name] = ~call[name]
        elif name == "hx":
            state = [here(f"hx{i}") for i in range(len(value))]
            call[name] = tuple(state) if len(state) > 1 else state[0]
    if layer == ATTENTION:
        result: Any = L.scaled_dot_product_attention(*inputs, **call)
    elif layer == "MultiheadAttention":
        query, key, value = inputs * 3 if len(inputs) == 1 else [*inputs, inputs[1]] if len(inputs) == 2 else inputs
        result = module(query, key, value, **call)
    else:
        result = module(*inputs, **call)
    flat = result if isinstance(result, tuple) else (result,)
    ys = [y for part in flat if part is not None for y in (part if isinstance(part, tuple) else (part,))]
    assert len(ys) == sum(name[0] == "y" for name in frozen)
    total = sum((y * backend.from_numpy(frozen[f"dy{i}"], device)).sum() for i, y in enumerate(ys))
    total.backward()

    def close(found: Any, name: str) -> None:
        expected = frozen[name]
        size = max(1.0, float(np.abs(expected).max(initial=0)))
        assert_close(found, expected, rtol=2e-5, atol=4e-6 * size, name=name)

    for i, y in enumerate(ys):
        close(y.data, f"y{i}")
    for name, leaf in leaves.items():
        close(leaf.grad, f"d {name}")
    for name, parameter in module.named_parameters() if module is not None else ():
        close(parameter.grad, f"d parameter {name}")
