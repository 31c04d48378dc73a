"""The convolution layers against results of PyTorch, frozen by ``fixtures/make_conv.py``, and against the lectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for, backend_of, is_channels_last
from lamella.testing import assert_close

FILE = np.load(Path(__file__).parent / "fixtures" / "conv.npz", allow_pickle=False)
CONFIGS = json.loads(str(FILE["configs"]))
QUICK = 19  # every so many configurations in the quick tests


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def on(device: Device, array: np.ndarray, layout: str = "contiguous") -> Any:
    there = backend_for(device).from_numpy(array, device)
    if layout == "channels_last":
        return lamella.Tensor(there).channels_last().data
    return backend_of(there).xp.repeat(there, 2, axis=-1)[..., ::2] if layout == "strided" else there


def tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def make(config: dict[str, Any]) -> L.Module:
    options = {name: tuples(value) for name, value in config["options"].items()}
    return getattr(L, config["layer"])(*map(tuples, config["arguments"]), **options)


def test_there_are_enough_configurations() -> None:
    assert len(CONFIGS) >= 200


@pytest.mark.parametrize(
    "number",
    [pytest.param(i, marks=[] if i % QUICK == 0 else [pytest.mark.slow]) for i in range(len(CONFIGS))],
)
def test_values_and_gradients_are_those_of_pytorch(number: int, device: Device) -> None:
    config = CONFIGS[number]
    layout = config["layout"]
    module = make(config).to(device)
    names = [name for name, _ in module.named_parameters()]
    assert names == ["weight", "bias"][: 1 if config["options"].get("bias") is False else 2]
    call = {name: tuples(value) for name, value in config["call"].items()}
    with lamella.no_grad():
        out = module(on(device, np.zeros(config["shape"], np.float32)), **call).shape
    rng = np.random.default_rng(number)
    shapes = [tuple(config["shape"]), tuple(out), *(p.shape for p in module.parameters())]
    values, dy, *weights = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    module.load_state_dict(dict(zip(names, weights, strict=True)))
    x = lamella.Tensor(on(device, values, layout), requires_grad=True)
    y = module(x, **call)
    y.backward(on(device, dy, layout))
    expected, start = FILE[str(number)], 0
    found = {"y": y.data, "dx": x.grad, **{f"d{name}": p.grad for name, p in module.named_parameters()}}
    for name, array in found.items():
        stop = start + array.size
        want = expected[start:stop].reshape(array.shape)
        assert array.dtype == np.float32
        assert_close(array, want, atol=4e-6 * max(1.0, float(np.abs(want).max(initial=0.0))), name=name)
        start = stop
    assert start == expected.size
    if layout == "channels_last" and y.size and is_channels_last(x.data) and min(y.shape[1:]) > 1:
        assert is_channels_last(y.data)


# -- what the lectures say ------------------------------------------------------------------------------------------


def toeplitz(weight: np.ndarray, length: int) -> np.ndarray:
    """The matrix of a one-channel convolution of stride 1 without padding: each row is the kernel, moved by one."""
    rows = length - len(weight) + 1
    matrix = np.zeros((rows, length))
    for i in range(rows):
        matrix[i, i : i + len(weight)] = weight
    return matrix


@pytest.mark.parametrize(("length", "size"), [(1, 1), (7, 3), (9, 4), (40, 40)])
def test_a_convolution_is_the_product_with_its_toeplitz_matrix(length: int, size: int, device: Device) -> None:
    x, w = normal(length), normal(size, seed=1)
    matrix = toeplitz(w, length)
    there = lamella.Tensor(on(device, x[None, None]), requires_grad=True)
    y = L.conv1d(there, on(device, w[None, None]))
    assert_close(y.data[0, 0], matrix @ x, rtol=1e-12, atol=1e-12)
    dy = normal(len(matrix), seed=2)
    y.backward(on(device, dy[None, None]))
    assert_close(there.grad[0, 0], matrix.T @ dy, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["valid", "full", "same"])
def test_correlation_with_the_turned_kernel_is_convolution(mode: str, device: Device) -> None:
    x, w = normal(11), normal(4, seed=1)
    padding = {"valid": 0, "full": 3, "same": [(2, 1)]}[mode]  # NumPy has the odd one first
    y = lamella.kernels.conv(
        on(device, x[None, None]), on(device, np.ascontiguousarray(w[::-1])[None, None]), padding=padding
    )
    assert_close(y[0, 0], np.convolve(x, w, mode), rtol=1e-12, atol=1e-12)


def test_a_transposed_convolution_is_the_adjoint_of_the_convolution(device: Device) -> None:
    x, w, y = normal(2, 3, 7, 5), normal(4, 3, 3, 2, seed=1), normal(2, 4, 4, 2, seed=2)
    options: dict[str, Any] = {"stride": (2, 3), "padding": (1, 1)}
    forth = L.conv2d(on(device, x), on(device, w), **options).to_numpy()
    back = L.conv_transpose2d(on(device, y), on(device, w), output_padding=(0, 2), **options).to_numpy()
    assert back.shape == x.shape
    assert abs((forth * y).sum() - (x * back).sum()) <= 1e-12 * np.abs(x * back).sum()


# -- what is particular to the layers -------------------------------------------------------------------------------


def test_initial_values_are_those_of_pytorch() -> None:
    for layer, fan_in in (
        (L.Conv2d(6, 4, (3, 2), groups=2), 18),
        (L.ConvTranspose2d(6, 4, (3, 2), groups=2), 12),  # out channels of a group, times the kernel
    ):
        for parameter in layer.parameters():
            largest = float(np.abs(parameter.to_numpy()).max())
            assert largest <= fan_in**-0.5
        assert float(np.abs(layer.weight.to_numpy()).max()) >= 0.9 * fan_in**-0.5


def test_unfold_and_fold_have_the_order_of_pytorch(device: Device) -> None:
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    cols = L.unfold(on(device, x), (2, 3)).to_numpy()
    assert cols.shape == (1, 12, 4)
    np.testing.assert_array_equal(cols[0, :, 1], [1, 2, 3, 5, 6, 7, 13, 14, 15, 17, 18, 19])
    back = L.fold(on(device, cols), (3, 4), (2, 3)).to_numpy()
    overlap = np.array([[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]])
    np.testing.assert_array_equal(back, x * overlap)
    assert L.unfold(on(device, x[0]), 2).shape == (8, 6)
    assert L.fold(on(device, cols[0]), (3, 4), (2, 3)).shape == (2, 3, 4)


def test_a_convolution_is_unfold_and_a_product(device: Device) -> None:
    x, w = normal(2, 3, 5, 6), normal(4, 3, 3, 2, seed=1)
    options: dict[str, Any] = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    cols = L.unfold(on(device, x), (3, 2), **options).to_numpy()
    y = L.conv2d(on(device, x), on(device, w), **options).to_numpy()
    assert_close(y.reshape(2, 4, -1), w.reshape(4, -1) @ cols, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.Conv2d(6, 4, 3, groups=4), "Conv2d: in_channels must be divisible by groups, got in_channels=6"),
        (lambda: L.Conv2d(4, 6, 3, groups=4), "Conv2d: out_channels must be divisible by groups, got out_channels=6"),
        (lambda: L.Conv2d(4, 6, 0), "Conv2d: kernel_size must be at least 1, got 0"),
        (lambda: L.Conv2d(4, 6, (3, 3, 3)), "Conv2d: kernel_size must be an integer or 2 of them, got"),
        (lambda: L.Conv2d(4, 6, 3, padding="full"), "Conv2d: padding must be integers, 'same' or 'valid', got 'full'"),
        (lambda: L.Conv2d(4, 6, 3, stride=2, padding="same"), "Conv2d: padding='same' needs stride 1, got stride="),
        (lambda: L.Conv2d(4, 6, 3, padding_mode="mirror"), "Conv2d: padding_mode must be one of 'zeros', 'reflect'"),
        (lambda: L.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), "padding_mode must be 'zeros', got 'reflect'"),
        (lambda: L.Conv2d(4, 6, 3)(np.zeros((1, 3, 5, 5), np.float32)), "Conv2d: x must have shape (N, 4, H, W) or"),
        (
            lambda: L.Conv1d(1, 1, 3, padding=5, padding_mode="reflect")(np.zeros((1, 1, 5), np.float32)),
            "padding (5, 5) does not fit an axis of length 5 in mode 'reflect'",
        ),
        (
            lambda: L.ConvTranspose1d(1, 1, 3, stride=2, output_padding=2)(np.zeros((1, 1, 5), np.float32)),
            "output_padding must be smaller than stride or dilation, got output_padding=(2,)",
        ),
        (
            lambda: L.ConvTranspose1d(1, 1, 3, stride=2)(np.zeros((1, 1, 5), np.float32), output_size=13),
            "ConvTranspose1d: output_size must be 11 … 12 for an input length of 5, got 13",
        ),
        (
            lambda: L.conv_transpose1d(np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32), padding=1),
            "nothing is left of x (1, 1, 1)",
        ),
        (lambda: L.fold(np.zeros((1, 8, 5), np.float32), 3, 2), "col2im: cols must have shape (N, a multiple of 4, 4)"),
        (lambda: L.conv1d(np.zeros((2, 3)), np.zeros((2, 3))), "conv1d: weight must have 3 axes, got shape (2, 3)"),
        (lambda: L.conv2d(np.zeros((2, 3)), np.zeros((2, 3, 1, 1))), "conv2d: x must have shape (N, C, H, W) or"),
    ],
)
def test_errors_name_the_argument_the_rule_and_the_value(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        call()
    assert message in str(error.value)


@pytest.mark.parametrize("layer", [L.Conv1d(1, 1, 1), L.Conv2d(1, 1, 1), L.ConvTranspose2d(1, 1, 1), L.ZeroPad2d(1)])
def test_what_is_no_array_is_named(layer: Any) -> None:
    name = type(layer).__name__
    with pytest.raises(TypeError, match=f"{name}: x must be a tensor or an array, got None"):
        layer(None)
    with pytest.raises(TypeError, match=f"{name}: x must be a tensor or an array, got a list"):
        layer([[[1.0]]])


def test_repr_says_what_differs_from_the_default() -> None:
    assert repr(L.Conv2d(3, 4, 3)) == "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))"
    assert repr(L.ConvTranspose1d(3, 6, 3, 2, 1, 1, groups=3, bias=False)) == (
        "ConvTranspose1d(3, 6, kernel_size=(3,), stride=(2,), output_padding=(1,), padding=(1,), groups=3, bias=False)"
    )


def test_winograd_gives_channels_last_and_strict_keeps_the_format() -> None:
    x = lamella.tensor(np.random.default_rng(0).standard_normal((1, 32, 8, 8)).astype(np.float32))
    conv = L.Conv2d(32, 32, 3, padding=1)
    quick = conv(x)
    with lamella.precision("strict"):
        strict = conv(x)
    assert is_channels_last(quick.data)
    assert strict.data.flags.c_contiguous
    assert_close(quick.to_numpy(), strict.to_numpy(), atol=2e-5 * abs(strict.to_numpy()).max())
