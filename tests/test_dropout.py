"""Dropout: what is kept, how it is scaled, and that the mask is a function of the stream alone."""

from __future__ import annotations

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for, random_bits


def test_kept_values_are_those_whose_word_reaches_p_and_are_scaled(device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((40, 25), dtype=np.float32)
    rng = lamella.Generator(5)
    key, offset = rng.state
    leaf = lamella.tensor(x, device=device, requires_grad=True)
    y = L.dropout(leaf, 0.3, rng=rng)
    y.backward(lamella.tensor(np.full_like(x, 2.0), device=device))
    keep = (random_bits(key, offset, x.size) >= round(0.3 * 2**32)).reshape(x.shape)
    np.testing.assert_allclose(y.to_numpy(), x * keep / np.float32(0.7), rtol=1e-6)
    np.testing.assert_allclose(backend_for(device).to_numpy(leaf.grad), 2 * keep / np.float32(0.7), rtol=1e-6)
    assert rng.state == (key, offset + x.size)
    assert abs(keep.mean() - 0.7) < 0.05


def test_the_word_that_equals_the_threshold_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    activation = importlib.import_module("lamella.kernels.activation")
    words = np.array([0, 2**30 - 1, 2**30, 2**30 + 1, 2**32 - 1], np.uint32)
    monkeypatch.setattr(activation, "random_bits", lambda *args: words)
    y = L.dropout(np.ones(5, np.float32), 0.25)
    np.testing.assert_array_equal(y.to_numpy() != 0, [False, False, True, True, True])


@pytest.mark.parametrize("function", [L.dropout, L.alpha_dropout])
def test_nothing_and_everything_can_be_dropped(function, device: Device) -> None:
    x = lamella.tensor([1.0, -2.0, 3.0], device=device, requires_grad=True)
    assert function(x, 0.0) is x
    assert function(x, 0.9, training=False) is x
    y = function(x, 1.0)
    y.sum().backward()
    np.testing.assert_array_equal(y.to_numpy(), 0)
    np.testing.assert_array_equal(backend_for(device).to_numpy(x.grad), 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.dropout(lamella.tensor([1.0]), 2.0), ValueError, r"dropout: p must be in \[0, 1\], got 2.0"),
        (lambda: L.dropout(lamella.tensor([1.0]), -0.1), ValueError, r"dropout: p must be in \[0, 1\], got -0.1"),
        (lambda: L.dropout(lamella.tensor([1])), TypeError, "dropout: x must be floating, got int64"),
        (lambda: L.Dropout("0.5"), TypeError, r"Dropout: p must be a number in \[0, 1\], got '0.5'"),
        (lambda: L.Dropout(float("nan")), ValueError, r"Dropout: p must be in \[0, 1\], got nan"),
        (lambda: L.Dropout2d(0.5, rng=3), TypeError, "Dropout2d: rng must be a lamella.Generator or None, got 3"),
        (lambda: L.Dropout2d(0.5)(np.ones((2, 3))), ValueError, r"x must have shape \(N, C, H, W\), got \(2, 3\)"),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("make", [L.Dropout, L.AlphaDropout])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_dtype_is_kept_in_training(make, dtype: str, device: Device) -> None:
    x = lamella.tensor(np.ones((4, 3)), dtype=dtype, device=device, requires_grad=True)
    y = make(0.3)(x)
    y.sum().backward()
    assert y.dtype == x.dtype
    assert x.grad.dtype == x.dtype
