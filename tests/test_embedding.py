"""Embedding: what is looked up, what flows back, and what is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.backend import Device, backend_for
from lamella.testing import assert_close


def on(device: Device, array: Any) -> Any:
    return backend_for(device).from_numpy(np.asarray(array), device)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (7,), (2, 3), (2, 0, 3), (300, 40)], ids=str)
@pytest.mark.parametrize("dim", [1, 3, 511, 512, 700])
def test_values_and_gradient_keep_their_definition(shape: tuple[int, ...], dim: int, device: Device) -> None:
    if dim > 3 and len(shape) == 2 and shape[0] > 100 and device.kind != "cpu":
        pytest.skip("one long case is enough")
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 11, shape)
    weight, dy = (rng.standard_normal(s, dtype=np.float32) for s in ((11, dim), (*shape, dim)))
    y = kernels.embedding(on(device, indices), on(device, weight))
    np.testing.assert_array_equal(backend_for(device).to_numpy(y), weight[indices])
    dweight = kernels.embedding_backward(on(device, dy), on(device, indices), 11)
    expected = np.zeros((11, dim))
    np.add.at(expected, indices.reshape(-1), dy.reshape(-1, dim).astype(np.float64))
    assert_close(dweight, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_every_integer_dtype_is_taken(kind: str, device: Device) -> None:
    layer = L.Embedding(300, 2).to(device)
    indices = np.array([[0, 100], [100, 7]], kind)
    y = layer(on(device, indices))
    np.testing.assert_array_equal(y.to_numpy(), layer.weight.to_numpy()[indices.astype(int)])
    y.sum().backward()
    counts = np.bincount(indices.astype(int).reshape(-1), minlength=300).astype(np.float32)
    np.testing.assert_array_equal(backend_for(device).to_numpy(layer.weight.grad)[:, 0], counts)


def test_the_padding_row_is_zero_and_stays_zero(device: Device) -> None:
    layer = L.Embedding(5, 3, padding_idx=-2).to(device)
    assert layer.padding_idx == 3
    assert not layer.weight.to_numpy()[3].any()
    y = layer(on(device, np.array([3, 0, 3, 1])))
    assert not y.to_numpy()[[0, 2]].any()
    y.sum().backward()
    np.testing.assert_array_equal(
        backend_for(device).to_numpy(layer.weight.grad)[:, 0], np.array([1, 1, 0, 0, 0], np.float32)
    )


def test_the_gradient_is_added_up_in_the_order_of_the_indices() -> None:
    dy = np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    wide = np.concatenate([dy] * 150, axis=1)  # long rows take the other way
    indices = np.zeros(5000, np.int64)
    one, other = kernels.embedding_backward(dy, indices, 1), kernels.embedding_backward(wide, indices, 1)
    total = np.zeros(4, np.float32)
    for row in dy:
        total += row
    np.testing.assert_array_equal(one[0], total)
    np.testing.assert_array_equal(other[0, :4], total)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_gradients_are_added_up_in_float32(dtype: Any, device: Device) -> None:
    layer = L.Embedding(2, 1).to(device, dtype=dtype)
    layer(on(device, np.zeros(3001, np.int64))).sum().backward()
    # one by one in float16 the sum would stick at 2048, in bfloat16 at 256
    assert abs(float(backend_for(device).to_numpy(layer.weight.grad)[0, 0]) - 3001) <= 8


def test_initial_values_are_normal() -> None:
    w = L.Embedding(200, 100, rng=lamella.Generator(0)).weight.to_numpy()
    assert abs(w.mean()) < 0.03
    assert abs(w.std() - 1) < 0.02


def test_it_writes_its_gradient_into_an_optimizers_buffer() -> None:
    layer = L.Embedding(4, 2, rng=lamella.Generator(0))
    before = layer.weight.to_numpy().copy()
    optimizer = lamella.training.SGD(layer.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        layer(np.array([1, 1, 3])).sum().backward()
        optimizer.step()
    expected = before - 2 * 0.5 * np.array([[0], [2], [0], [1]], np.float32)
    assert_close(layer.weight.to_numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.Embedding(5, 2)(np.array([0, 5])), ValueError, r"indices must be in 0 … 4, got 5"),
        (lambda: L.Embedding(5, 2)(np.array([-1, 0])), ValueError, r"indices must be in 0 … 4, got -1"),
        (lambda: L.Embedding(5, 2)(np.array([0.0])), TypeError, "indices must be integers, got float64"),
        (lambda: L.Embedding(5, 2)(np.array([True])), TypeError, "indices must be integers, got bool"),
        (lambda: L.Embedding(5, 2, padding_idx=5), ValueError, "padding_idx must be in -5 … 4, got 5"),
        (lambda: L.Embedding(0, 2), ValueError, "num_embeddings must be at least 1, got 0"),
        (lambda: L.Embedding(3, 2.0), TypeError, "embedding_dim must be an int, got 2.0"),
        (lambda: L.embedding(np.array([0]), np.ones(3)), ValueError, r"weight must have shape \(num_embeddings"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_where_looking_would_stall_a_wrong_index_gives_nan() -> None:
    with lamella.testing.simulator():
        layer = L.Embedding(3, 2).to("simulator")
        y = layer(on(lamella.device("simulator"), np.array([0, 3, -1]))).to_numpy()
    assert not np.isnan(y[0]).any()
    assert np.isnan(y[1:]).all()
