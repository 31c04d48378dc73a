"""Batch norm, pooling, resizing and padding against results of PyTorch, frozen by ``fixtures/make_images.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for, in_format, is_channels_last
from lamella.testing import assert_close

FILE = np.load(Path(__file__).parent / "fixtures" / "images.npz", allow_pickle=False)
CONFIGS = json.loads(str(FILE["configs"]))
FIELDS = json.loads(str(FILE["fields"]))
NUMBERS: Any = FILE["numbers"]
STARTS = np.cumsum([0] + [sum(int(np.prod(shape)) for _, shape in fields) for fields in FIELDS])
_EVERY = 13  # which configurations are quick


def frozen(number: int) -> dict[str, np.ndarray]:
    result, start = {}, int(STARTS[number])
    for name, shape in FIELDS[number]:
        stop = start + int(np.prod(shape))
        result[name] = NUMBERS[start:stop].reshape(shape)
        start = stop
    return result


def in_form(x: np.ndarray, form: str, device: Device) -> Any:
    """The array on the device, lying in memory as ``form`` says."""
    backend = backend_for(device)
    if form == "strided":
        return backend.from_numpy(np.repeat(x, 2, axis=-1), device)[..., ::2]
    there = backend.from_numpy(np.ascontiguousarray(x), device)
    return in_format(there, True) if form == "channels_last" and x.ndim > 2 else there


def test_there_are_enough_configurations() -> None:
    assert len(CONFIGS) >= 200
    assert {form for *_, form in CONFIGS} == {"contiguous", "channels_last", "strided"}
    assert any(shape[0] == 0 for _, _, _, shape, _ in CONFIGS)


def _name(number: int) -> str:
    function, arguments, options, _, form = CONFIGS[number]
    words = [str(part).replace(" ", "") for part in (*arguments, *options.values())]
    return "-".join([str(number), function, *words, form])


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, id=_name(n), marks=() if n % _EVERY == 6 else pytest.mark.slow)
        for n in range(len(CONFIGS))
    ],
)
def test_values_and_gradients_are_those_of_pytorch(number: int, device: Device) -> None:
    function, arguments, options, _, form = CONFIGS[number]
    expected, backend = frozen(number), backend_for(device)
    arguments = [tuple(a) if isinstance(a, list) else a for a in arguments]
    options = {name: tuple(o) if isinstance(o, list) else o for name, o in options.items()}
    x = lamella.Tensor(in_form(expected["x"], form, device), requires_grad=True)
    indices, module = None, None
    if function.startswith("BatchNorm"):
        module = getattr(L, function)(*arguments, **options).to(device)
        for name, parameter in module.named_parameters():
            parameter.data[...] = backend.from_numpy(expected[name], device)
        with lamella.no_grad():
            module(x * 2.0 - 1.0)
        y = module(x)
    elif "max_unpool" in function:
        y = getattr(L, function)(x, backend.from_numpy(expected["indices"].astype(np.int64), device), *arguments)
    elif "max_pool" in function:
        y, indices = getattr(L, function)(x, *arguments, **options, return_indices=True)
    else:
        y = getattr(L, function)(x, *arguments, **options)
    y.backward(backend.from_numpy(expected["dy"], device))

    def close(found: Any, name: str, scale: float = 1.0) -> None:
        atol = 3e-6 * scale * max(1.0, float(np.abs(expected[name]).max(initial=0.0)))
        assert_close(found, expected[name], rtol=2e-5, atol=atol, name=name)

    close(y.data, "y")
    close(x.grad, "dx", 4.0)
    if indices is not None:
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(backend.to_numpy(indices.data), expected["indices"])
        plain = getattr(L, function)(x, *arguments, **options)
        np.testing.assert_array_equal(backend.to_numpy(plain.data), backend.to_numpy(y.data))
        assert is_channels_last(plain.data) == is_channels_last(y.data)
    if module is not None:
        for name, parameter in module.named_parameters():
            close(parameter.grad, f"d{name}", 4.0)
        for name in ("running_mean", "running_var"):
            if name in expected:
                close(getattr(module, name).data, name)
    elif is_channels_last(x.data) and min(y.shape) > 1 and function.endswith(f"pool{x.ndim - 2}d"):
        assert is_channels_last(y.data) or "un" in function
