"""A call that is refused leaves the random generator where it was, so that what follows draws what it would have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for

_REFUSED: dict[str, Callable[..., Any]] = {
    "masked_softmax: mask": lambda x, q, w, rng: L.masked_softmax(x, x[0, :5], p=0.5, rng=rng),
    "masked_softmax: axis": lambda x, q, w, rng: L.masked_softmax(x, axis=3, p=0.5, rng=rng),
    "masked_softmax: mask's dtype": lambda x, q, w, rng: L.masked_softmax(x, _wide(x), p=0.5, rng=rng),
    "masked_softmax: scale": lambda x, q, w, rng: L.masked_softmax(x, scale=math.inf, p=0.5, rng=rng),
    "layer norm: shape": lambda x, q, w, rng: L.dropout_add_layer_norm(x, x, 5, p=0.5, rng=rng),
    "layer norm: dtype": lambda x, q, w, rng: L.dropout_add_layer_norm(x, _wide(x), 6, p=0.5, rng=rng),
    "layer norm: bias": lambda x, q, w, rng: L.dropout_add_layer_norm(x, x, 6, bias=_wide(x)[0], p=0.5, rng=rng),
    "layer norm: eps": lambda x, q, w, rng: L.dropout_add_layer_norm(x, x, 6, eps=-1.0, p=0.5, rng=rng),
    "rms norm: weight": lambda x, q, w, rng: L.dropout_add_rms_norm(x, x, 6, x[0, :2], p=0.5, rng=rng),
    "rms norm: dtype": lambda x, q, w, rng: L.dropout_add_rms_norm(x, _wide(x), 6, p=0.5, rng=rng),
    "attention: dtype": lambda x, q, w, rng: _attention(q, _wide(q), q, rng=rng),
    "attention: width": lambda x, q, w, rng: _attention(q, q[..., :3], q, rng=rng),
    "attention: length": lambda x, q, w, rng: _attention(q, q, q[:, :, :2], rng=rng),
    "attention: mask": lambda x, q, w, rng: _attention(q, q, q, q[0, 0, :2], rng=rng),
    "attention: mask's dtype": lambda x, q, w, rng: _attention(q, q, q, q[..., :3].astype("int64"), rng=rng),
    "linear: bias": lambda x, q, w, rng: L.linear_activation(lamella.Tensor(x), w, x[0], L.ReLU(), p=0.5, rng=rng),
}


def _wide(x: Any) -> Any:
    return x.astype("float64")


def _attention(*arrays: Any, rng: Any) -> Any:
    return L.scaled_dot_product_attention(*arrays, dropout_p=0.5, rng=rng)


def _given(device: Device) -> tuple[Any, Any, Any]:
    put = backend_for(device).from_numpy
    shapes = ((2, 6), (1, 1, 3, 4), (5, 6))
    x, q, w = (put(np.ones(shape, np.float32), device) for shape in shapes)
    return x, q, w


@pytest.mark.parametrize("name", _REFUSED)
def test_a_call_that_is_refused_draws_nothing(name: str, device: Device) -> None:
    rng = lamella.Generator(3)
    with pytest.raises((TypeError, ValueError)):
        _REFUSED[name](*_given(device), rng)
    assert rng.state == (3, 0)


def test_a_call_that_is_not_draws_a_word_for_each_element(device: Device) -> None:
    rng, (x, q, w) = lamella.Generator(3), _given(device)
    for call, words in (
        (lambda: L.masked_softmax(x, p=0.5, rng=rng), 12),
        (lambda: L.dropout_add_layer_norm(x, x, 6, p=0.5, rng=rng), 12),
        (lambda: L.dropout_add_rms_norm(x, x, 6, p=0.5, rng=rng), 12),
        (lambda: _attention(q, q, q, rng=rng), 9),
        (lambda: L.linear_activation(lamella.Tensor(x), w, p=0.5, rng=rng), 10),
        (lambda: L.masked_softmax(x, p=0.5, training=False, rng=rng), 0),
    ):
        before = rng.state[1]
        call()
        assert rng.state[1] - before == words
