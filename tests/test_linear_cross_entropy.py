"""Linear layer and cross entropy in one, by chunks: one body for every device, judged by float64."""

from __future__ import annotations

import importlib

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels

from .test_cross_entropy import reference64
from .test_softmax import put, take, unit


def make(rows, width, classes, dtype, ignored=(1,)):
    rng = np.random.default_rng((rows, width, classes))
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, width), (classes, width)))
    labels = rng.integers(0, classes, rows)
    labels[list(ignored)] = -100
    return x, weight, labels, rng.standard_normal(classes).astype(dtype)


def reference(x, weight, labels, bias, **options):
    """The sum of the losses and its gradients in float64."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    logits = x @ weight.T + (0 if bias is None else bias.astype(np.float64))
    losses, gradient, _ = reference64(logits, labels, **options)
    return losses.sum(), (gradient @ weight, gradient.T @ x, gradient.sum(axis=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("chunk", [1, 3, 7, None])
def test_chunks_are_the_whole(chunk, dtype, device):
    x, weight, labels, bias = make(7, 5, 11, dtype)
    place = [put(a, device) for a in (x, weight, labels, bias)]
    loss, total, found = kernels.linear_cross_entropy(*place, chunk=chunk, gradients=True, z_loss=0.01)
    expected, gradients = reference(x, weight, labels, bias, z_loss=0.01)
    rounding = 40 * unit(dtype)  # logits are rounded to the dtype before the loss sees them
    np.testing.assert_allclose(take(loss, device), expected, rtol=rounding)
    np.testing.assert_array_equal(take(total, device), [6])
    assert total.dtype == (np.float64 if dtype == np.float64 else np.float32)
    for gradient, wanted in zip(found, gradients, strict=True):
        assert gradient.dtype == dtype
        assert abs(take(gradient, device).astype(np.float64) - wanted).max() <= rounding * abs(wanted).max()
    without = kernels.linear_cross_entropy(*place, chunk=chunk, z_loss=0.01)
    assert without[2] is None
    np.testing.assert_allclose(take(without[0], device), take(loss, device), rtol=rounding / 10)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_layer_is_linear_then_cross_entropy(reduction, has_bias, device):
    x, weight, labels, bias = make(6, 4, 9, np.float32)
    x, labels = x.reshape(2, 3, 4), labels.reshape(2, 3)
    options = {"reduction": reduction, "label_smoothing": 0.1, "z_loss": 0.02}
    results = []
    for fused in (True, False):
        tensors = [lamella.Tensor(put(a, device), requires_grad=True) for a in (x, weight, bias)]
        a, w, b = tensors[0], tensors[1], tensors[2] if has_bias else None
        if fused:
            y = L.linear_cross_entropy(a, w, put(labels, device), b, chunk=4, **options)
        else:
            y = L.cross_entropy(L.linear(a, w, b).reshape(6, 9), put(labels.reshape(-1), device), **options)
        (y * 2.0).backward()
        results.append([y.data, *(t.grad for t in tensors[: 2 + has_bias])])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(take(found, device), take(expected, device), rtol=1e-5, atol=1e-6)


def test_gradcheck():
    x, weight, labels, bias = make(5, 3, 4, np.float64)
    assert lamella.gradcheck(lambda x, w, b: L.linear_cross_entropy(x, w, labels, b, chunk=2), x, weight, bias)


def test_the_graph_can_be_walked_twice(device):
    x, weight, labels, _ = make(5, 3, 4, np.float32)
    leaf = lamella.Tensor(put(weight, device), requires_grad=True)
    y = L.linear_cross_entropy(put(x, device), leaf, put(labels, device)) * 3.0
    y.backward(retain_graph=True)
    once = take(leaf.grad, device).copy()
    y.backward()
    np.testing.assert_allclose(take(leaf.grad, device), 2 * once, rtol=1e-5)


def test_no_more_logits_exist_than_one_chunk(monkeypatch):
    module = importlib.import_module("lamella.kernels.linear_cross_entropy")
    seen, own = [], module.cross_entropy
    monkeypatch.setattr(module, "cross_entropy", lambda x, *a, **o: seen.append(x.shape) or own(x, *a, **o))
    x, weight, labels, _ = make(10, 4, 50, np.float32)
    kernels.linear_cross_entropy(x, weight, labels, chunk=4, gradients=True)
    assert seen == [(4, 50), (4, 50), (2, 50)]
    monkeypatch.setattr(module, "_ON_CPU", 150)
    seen.clear()
    kernels.linear_cross_entropy(x, weight, labels)
    assert seen == [(3, 50)] * 3 + [(1, 50)]


def test_nothing_waits_for_the_device():
    with lamella.testing.simulator() as sim:
        x, weight, labels, _ = (put(a, "simulator") for a in make(5, 3, 4, np.float32))
        leaf = lamella.Tensor(weight, requires_grad=True)
        sim.reset()
        L.linear_cross_entropy(x, leaf, labels, chunk=2).backward()
        assert sim.synchronizations == 0
        assert sim.launches["cross_entropy_rows"] == 3


def test_wrong_labels_and_nothing_that_counts():
    x, weight, labels, _ = make(4, 3, 5, np.float32)
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\.\. 4 or -100, got 5"):
        L.linear_cross_entropy(x, weight, np.array([0, 1, 5, 2]))
    with pytest.raises(ValueError, match="mean of no losses is undefined"):
        L.linear_cross_entropy(x, weight, np.full(4, -100))
    assert L.linear_cross_entropy(x, weight, np.full(4, -100), reduction="sum").item() == 0
    assert L.linear_cross_entropy(x[:0], weight, labels[:0], reduction="sum").item() == 0


def test_errors_name_argument_rule_and_value(device):
    x, weight, labels, bias = (put(a, device) for a in make(4, 3, 5, np.float32))
    fused = L.linear_cross_entropy
    for wrong, kind, message in (
        (lambda: fused(x, weight, labels[:2]), ValueError, r"labels \(\.\.\.\), got \(4, 3\) and \(2,\)"),
        (lambda: fused(x, weight, labels, reduction="none"), ValueError, "'mean' or 'sum', got 'none'"),
        (lambda: fused(x, weight[:, 1:], labels), ValueError, r"weight \(C, D\), got \(4, 3\) and \(5, 2\)"),
        (lambda: fused(x, weight, labels, bias[1:]), ValueError, r"bias must have shape \(5,\), got \(4,\)"),
        (lambda: fused(x, weight, labels, chunk=0), ValueError, "chunk must be .* at least 1, .*got 0"),
        (lambda: fused(x, weight, x[:, 0]), TypeError, "labels must be integers, got float32"),
        (lambda: fused(x, weight.astype("float64"), labels), TypeError, "dtype of x, float32, got float64"),
        (lambda: kernels.linear_cross_entropy(x, weight, labels[1:]), ValueError, r"shape \(4,\), got \(3,\)"),
    ):
        with pytest.raises(kind, match=message):
            wrong()
