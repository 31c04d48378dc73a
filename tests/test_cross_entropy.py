"""Cross entropy on plain arrays: one body for every device, judged by float64."""

from __future__ import annotations

import importlib
import math

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.backend import backend_for
from lamella.kernels._launch import DeviceSize

from .kernel_heads import KERNELS, variants
from .test_softmax import put, take, unit

module = importlib.import_module("lamella.kernels.cross_entropy")

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]
SIZES = [1, 31, 32, 33, 1023, 1024, 1025, 4097, 50257]
KINDS = ["labels", "smoothed", "probabilities"]


def reference64(x, targets, weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0):
    """Losses and their gradients row by row, with exact sums; and the size of the terms that cancel in a gradient."""
    x = x.astype(np.float64)
    losses, gradients, size = np.zeros(len(x)), np.zeros(x.shape), 0.0
    w = np.ones(x.shape[1]) if weight is None else weight.astype(np.float64)
    for r, row in enumerate(x):
        if targets.ndim == 1:
            if targets[r] == ignore_index:
                continue
            t = np.arange(x.shape[1]) == targets[r]
        else:
            t = targets[r].astype(np.float64)
        q = w * ((1 - label_smoothing) * t + label_smoothing / x.shape[1])
        top = row.max()
        with np.errstate(invalid="ignore"):
            lse = top + math.log(math.fsum(np.exp(row - top)))
            losses[r] = math.fsum(q[q != 0] * (lse - row[q != 0])) + z_loss * lse * lse
            p = np.exp(row - lse)
        gradients[r] = (math.fsum(q) + 2 * z_loss * lse) * p - q
        size = max(size, float((q.sum() + 2 * z_loss * abs(lse)) * p.max() + q.max()))
    return losses, gradients, size


def make(rows, cols, kind, dtype, scale=3.0):
    """Logits, targets, weight and options of one kind."""
    rng = np.random.default_rng((rows, cols))
    x = (rng.standard_normal((rows, cols)) * scale).astype(dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    options = {"z_loss": 0.01} if kind != "labels" else {}
    weight = rng.uniform(0.5, 2, cols).astype(wide) if cols % 2 else None
    if kind == "probabilities":
        t = rng.uniform(0, 1, (rows, cols))
        targets = (t / t.sum(axis=1, keepdims=True)).astype(dtype)
        options["label_smoothing"] = 0.2 if cols % 3 else 0.0
    else:
        targets = rng.integers(0, cols, rows)
        targets[1] = -100
        options["label_smoothing"] = 0.1 if kind == "smoothed" else 0.0
    return x, targets, weight, options


def check(x, targets, weight, options, device):
    """Losses and gradients by both ways: at most twice as far from float64 as the plain definition in its dtype."""
    place = [None if a is None else put(a, device) for a in (x, targets, weight)]
    dx = put(np.full(x.shape, np.nan).astype(x.dtype), device)
    losses = take(kernels.cross_entropy(*place, **options, reduction="none", dlogits=dx), device)
    expected, gradient, size = reference64(x, targets, weight, **options)
    given = module.Options(-100, "none", options["label_smoothing"], options.get("z_loss", 0.0))
    plain = kernels.cross_entropy_definition(x, targets, weight, given)
    wide = np.float64 if x.dtype == np.float64 else np.float32
    assert losses.dtype == wide
    bound = 2 * abs(plain[0] - expected).max() + 2 * unit(wide) * (1 + abs(expected).max())
    assert abs(losses - expected).max() <= bound
    plain_error = abs(plain[2].astype(x.dtype).astype(np.float64) - gradient).max()
    bound = 2 * plain_error + (unit(wide) * 2 + unit(x.dtype) / 4) * size
    assert abs(take(dx, device).astype(np.float64) - gradient).max() <= bound

    dy = np.random.default_rng(5).uniform(0.5, 2, len(x)).astype(wide)
    dx = take(kernels.cross_entropy_backward(put(dy, device), *place, **options, reduction="none"), device)
    assert abs(dx.astype(np.float64) - gradient * dy[:, None]).max() <= 2 * bound + unit(x.dtype) * 2 * size


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("cols", [1, 33, 1025])
def test_rows_of_labels(cols, dtype, device):
    check(*make(5, cols, "labels", dtype), device)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("cols", [2, 33, 1025])
def test_rows_of_other_targets(cols, kind, device):
    check(*make(4, cols, kind, np.float32), device)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*(("labels", dtype) for dtype in DTYPES[:3]), ("smoothed", np.float16), ("probabilities", ml_dtypes.bfloat16)],
    ids=lambda value: value if isinstance(value, str) else np.dtype(value).name,
)
@pytest.mark.parametrize("cols", SIZES)
def test_rows_of_every_length(cols, kind, dtype, device):
    check(*make(3, cols, kind, dtype), device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cols", "magnitude"),
    [(40, 1e4), (40, -1e4), (40, 1e30), (40, 3e38), pytest.param(50_257, 1e4, marks=pytest.mark.slow)],
)
def test_large_logits(cols, magnitude, kind, device):
    x, targets, weight, options = make(4, cols, kind, np.float32)
    x += np.float32(magnitude)
    x[2] = np.random.default_rng(0).standard_normal(cols) * 1e4
    x[3, 7] = magnitude * (1 + 1e-6)
    check(x, targets, weight, options | {"z_loss": 0.0}, device)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("cols", "dtype"), [(1, np.float32), (5, ml_dtypes.bfloat16), (37, np.float32)])
def test_images_are_rows_whose_classes_lie_apart(cols, dtype, kind, reduction, device):
    rows, targets, weight, options = make(2 * 33, cols, kind, dtype)

    def lay(a):
        return np.moveaxis(a.reshape(2, 3, 11, cols), -1, 1).copy()

    x = lay(rows)
    t = lay(targets) if kind == "probabilities" else targets.reshape(2, 3, 11)
    place = [None if a is None else put(a, device) for a in (x, t, weight)]
    dx = put(np.full(x.shape, np.nan).astype(dtype), device)
    y = take(kernels.cross_entropy(*place, **options, reduction=reduction, dlogits=dx), device)
    by_rows = [None if a is None else put(a, device) for a in (rows, targets, weight)]
    drows = put(np.zeros_like(rows), device)
    expected = take(kernels.cross_entropy(*by_rows, **options, reduction=reduction, dlogits=drows), device)
    lamella.testing.assert_close(y.reshape(-1), expected.reshape(-1), rtol=2e-6, atol=2e-6)
    if reduction == "none":
        assert y.shape == (2, 3, 11)
        losses, _, _ = reference64(rows, targets, weight, **options)
        lamella.testing.assert_close(y.reshape(-1), losses, rtol=5e-6, atol=2e-6)
    tolerance = {"rtol": 2 * unit(dtype), "atol": 2 * unit(dtype) * (0.02 if reduction == "mean" else 1)}
    lamella.testing.assert_close(take(dx, device), lay(take(drows, device)), **tolerance)
    dy = np.random.default_rng(1).uniform(1, 2, y.shape).astype(np.float32)
    anew = kernels.cross_entropy_backward(put(dy, device), *place, **options, reduction=reduction)
    scaled = take(dx, device).astype(np.float32) * (dy[:, None] if reduction == "none" else dy)
    tolerance["rtol"] *= 2
    tolerance["atol"] *= 2
    lamella.testing.assert_close(take(anew, device).astype(np.float32), scaled, **tolerance)
    if device.kind == "simulator":
        launched = backend_for(device).launches
        assert launched["cross_entropy_columns"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_few_long_rows_are_cut_into_parts(kind, device):
    x, targets, weight, options = make(2, (1 << 15) + 1, kind, np.float32)
    place = [None if a is None else put(a, device) for a in (x, targets, weight)]
    dx = put(np.full_like(x, np.nan), device)
    losses = take(kernels.cross_entropy(*place, **options, reduction="none", dlogits=dx), device)
    expected, gradient, size = reference64(x, targets, weight, **options)
    lamella.testing.assert_close(losses, expected, rtol=3e-6)
    lamella.testing.assert_close(take(dx, device), gradient, rtol=0, atol=3e-7 * size)
    again = take(kernels.cross_entropy(*place, **options, reduction="none", dlogits=place[0]), device)
    np.testing.assert_array_equal(again, losses)
    np.testing.assert_array_equal(take(place[0], device), take(dx, device))
    if device.kind == "simulator":
        assert backend_for(device).launches == {"cross_entropy_parts": 2, "cross_entropy_split": 2}
        said = kernels.explain("cross_entropy", *place, **options)
        assert "2 rows of 32769 do not fill the device, each is cut into 8 parts and read once" in said


def test_small_losses_keep_their_digits(device):
    x = np.full((3, 1000), 10, np.float32)
    x[:, 7] = 30
    found = take(kernels.cross_entropy(put(x, device), put(np.full(3, 7), device), reduction="none"), device)
    np.testing.assert_allclose(found, math.log1p(999 * math.exp(-20)), rtol=5e-6)


@pytest.mark.parametrize("logit", [-60.0, -200.0, -1e4])
def test_the_loss_of_a_label_whose_exponential_is_lost(logit, device):
    x = np.zeros((2, 100), np.float32)
    x[:, 7] = logit
    found = take(kernels.cross_entropy(put(x, device), put(np.full(2, 7), device), reduction="none"), device)
    np.testing.assert_allclose(found, math.log(99) - logit, rtol=1e-6)


@pytest.mark.parametrize("cols", [9, 100, 1500, pytest.param(50_257, marks=pytest.mark.slow)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_infinities_and_nan_stay_in_their_row(smoothing, cols, device):
    x = np.random.default_rng(0).standard_normal((6, cols)).astype(np.float32)
    labels = np.array([0, 1, 2, -100, 4, 5])
    x[1] = -np.inf
    x[2, cols // 2] = np.nan
    x[3, 0] = np.nan  # ignored
    x[4, 4] = -np.inf  # the label is impossible
    dx = put(np.zeros_like(x), device)
    given = put(x, device), put(labels, device)
    losses = take(
        kernels.cross_entropy(*given, label_smoothing=smoothing, reduction="none", dlogits=dx), device
    )
    dx = take(dx, device)
    np.testing.assert_array_equal(np.isnan(losses), [False, True, True, False, False, False])
    assert losses[4] == np.inf
    assert losses[3] == 0
    keep = [0, 5]
    expected, gradient, _ = reference64(x[keep], labels[keep], label_smoothing=smoothing)
    np.testing.assert_allclose(losses[keep], expected, rtol=1e-5)
    np.testing.assert_allclose(dx[keep], gradient, atol=1e-6)
    if device.kind != "cpu":  # an ignored row gets 0 whatever stands in it
        assert not dx[3].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cols", [20, 700, 2500])
def test_the_gradient_may_be_written_over_the_logits(cols, kind, device):
    x, targets, weight, options = make(3, cols, kind, np.float32)
    place = [None if a is None else put(a, device) for a in (x, targets, weight)]
    dx = put(np.zeros_like(x), device)
    y = take(kernels.cross_entropy(*place, **options, dlogits=dx), device)
    again = take(kernels.cross_entropy(*place, **options, dlogits=place[0]), device)
    np.testing.assert_array_equal(y, again)
    np.testing.assert_array_equal(take(dx, device), take(place[0], device))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=lambda dtype: np.dtype(dtype).name)
def test_reductions_and_their_gradients(reduction, kind, dtype, device):
    x, targets, weight, options = make(700, 9, kind, dtype)
    place = [None if a is None else put(a, device) for a in (x, targets, weight)]
    losses, gradient, size = reference64(x, targets, weight, **options)
    total = 1.0
    if reduction == "mean":
        counted = np.ones(9) if weight is None else weight.astype(np.float64)
        total = len(x) if kind == "probabilities" else math.fsum(counted[targets[targets >= 0]])
    dx = put(np.zeros_like(x), device)
    y = take(kernels.cross_entropy(*place, **options, reduction=reduction, dlogits=dx), device)
    np.testing.assert_allclose(y, losses.sum() / total, rtol=1e-6)
    bound = (unit(dtype) + 1e-6) * size / total
    assert abs(take(dx, device).astype(np.float64) - gradient / total).max() <= bound
    dy = put(np.array(3.0, np.float32), device)
    formed = take(kernels.scale_gradient(dx, dy), device).astype(np.float64)
    anew = take(kernels.cross_entropy_backward(dy, *place, **options, reduction=reduction), device).astype(np.float64)
    for dx in (formed, anew):
        assert abs(dx - gradient * 3 / total).max() <= 6 * bound


def test_a_gradient_of_one_is_not_touched(device):
    x = put(np.arange(11, dtype=np.float32), device)
    one, half = (put(np.array(value, np.float32), device) for value in (1.0, 0.5))
    np.testing.assert_array_equal(take(kernels.scale_gradient(x, one), device), np.arange(11))
    np.testing.assert_array_equal(take(kernels.scale_gradient(x[1:], half), device), np.arange(1, 11) / 2)
    np.testing.assert_array_equal(take(x, device)[:1], [0])
    whole = put((np.arange(5003) % 100).astype(np.float16), device)
    np.testing.assert_array_equal(
        take(kernels.scale_gradient(whole, half), device), (np.arange(5003) % 100 / 2).astype(np.float16)
    )


@pytest.mark.parametrize("wrong", [7, -1, 2**40])
def test_a_label_out_of_range_is_reported_when_the_host_waits(wrong, device):
    x = put(np.zeros((3, 7), np.float32), device)
    labels = put(np.array([1, wrong, -100]), device)
    message = rf"cross_entropy: labels must be in 0 (\.\.\.|…) 6 or -100, got {wrong}"
    if device.kind == "cpu":
        with pytest.raises(ValueError, match=message):
            kernels.cross_entropy(x, labels)
        return
    for smoothing in (0.0, 0.1):
        dx = put(np.zeros((3, 7), np.float32), device)
        losses = kernels.cross_entropy(x, labels, label_smoothing=smoothing, reduction="none", dlogits=dx)
        with pytest.raises(ValueError, match=message):
            take(losses, device)
        np.testing.assert_array_equal(np.isnan(take(losses, device)), [False, True, False])
        np.testing.assert_array_equal(np.isnan(take(dx, device)).all(axis=1), [False, True, False])


def test_an_index_to_ignore_may_be_a_class(device):
    x, labels = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32), np.array([2, 0, 2, 4])
    losses = take(kernels.cross_entropy(put(x, device), put(labels, device), ignore_index=2, reduction="none"), device)
    np.testing.assert_allclose(losses, reference64(x, labels, ignore_index=2)[0], rtol=1e-6)
    mean = take(kernels.cross_entropy(put(x, device), put(labels, device), ignore_index=2), device)
    np.testing.assert_allclose(mean, losses.sum() / 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
def test_labels_of_every_integer_kind(dtype, device):
    x, labels = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32), np.array([2, 0, 4])
    found = take(kernels.cross_entropy(put(x, device), put(labels.astype(dtype), device), reduction="sum"), device)
    np.testing.assert_allclose(found, reference64(x, labels)[0].sum(), rtol=1e-6)


def test_arrays_that_are_not_contiguous_or_off_a_boundary(device):
    rng = np.random.default_rng(0)
    host, labels = rng.standard_normal((7, 90)).astype(np.float32), np.arange(7)
    for view in (lambda a: a[:, ::2], lambda a: a[:, 1:51], lambda a: a.T[:7, :7]):
        found = take(kernels.cross_entropy(view(put(host, device)), put(labels, device), reduction="none"), device)
        np.testing.assert_allclose(found, reference64(view(host), labels)[0], rtol=2e-6, atol=1e-6)
    flat = rng.standard_normal(3 * 90 + 1).astype(np.float32)
    odd = put(flat, device)[1:].reshape(3, 90)
    dx = put(np.zeros((3, 90), np.float32), device)
    found = take(kernels.cross_entropy(odd, put(labels[:3], device), reduction="none", dlogits=dx), device)
    np.testing.assert_allclose(found, reference64(flat[1:].reshape(3, 90), labels[:3])[0], rtol=2e-6)
    kernels.cross_entropy(odd, put(labels[:3], device), dlogits=odd)
    np.testing.assert_allclose(take(odd, device), take(dx, device) / 3, atol=1e-7)


def test_no_rows(device):
    x, labels = put(np.zeros((0, 5), np.float32), device), put(np.zeros(0, np.int64), device)
    assert take(kernels.cross_entropy(x, labels, reduction="sum"), device) == 0
    assert kernels.cross_entropy(x, labels, reduction="none").shape == (0,)
    with pytest.raises(ValueError, match="mean of no losses is undefined"):
        kernels.cross_entropy(x, labels)


# -- the layer --------------------------------------------------------------------------------------------------------


def test_a_step_is_one_node_and_few_launches_and_nothing_waits():
    with lamella.testing.simulator() as sim:
        x = lamella.tensor(np.zeros((4, 10), np.float32), device="simulator", requires_grad=True)
        labels = put(np.array([1, 2, 3, -100]), "simulator")
        sim.reset()
        L.cross_entropy(x, labels).backward()
        names = ("cross_entropy_divisor", "cross_entropy_rows", "cross_entropy_total")
        assert {name: count for name, count in sim.launches.items() if "cross" in name} == dict.fromkeys(names, 1)
        (L.cross_entropy(x, labels) * 2.0).backward()
        assert sim.launches["cross_entropy_scale"] == 1
        sim.reset()
        L.cross_entropy(x, labels, reduction="none").sum().backward()
        assert sim.launches["cross_entropy_rows"] == 2
        assert sim.synchronizations == 0


def test_images_are_not_copied():
    with lamella.testing.simulator() as sim:
        x = lamella.tensor(np.zeros((2, 7, 4, 5), np.float32), device="simulator", requires_grad=True)
        labels = put(np.zeros((2, 4, 5), np.int64), "simulator")
        sim.reset()
        L.cross_entropy(x, labels).backward()
        names = ("cross_entropy_divisor", "cross_entropy_columns", "cross_entropy_total")
        assert {name: count for name, count in sim.launches.items() if "cross" in name} == dict.fromkeys(names, 1)
        assert not {"moveaxis", "ascontiguousarray"} & set(sim.operations)
        assert x.grad.shape == x.shape
        assert x.grad.flags.c_contiguous
        channels_last = lamella.Tensor(x.data.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), requires_grad=True)
        sim.reset()
        L.cross_entropy(channels_last, labels).backward()
        assert sim.launches["cross_entropy_rows"] == 1, "the classes lie beside each other already"
        assert "ascontiguousarray" not in sim.operations


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [True, False])
def test_nll_loss_after_log_softmax_is_cross_entropy(weighted, reduction, device):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((2, 5, 3)).astype(np.float32), rng.integers(0, 5, (2, 3))
    labels[1, 2] = -100
    weight = put(rng.uniform(0.5, 2, 5).astype(np.float32), device) if weighted else None
    results = []
    for function in (L.cross_entropy, lambda t, *a, **o: L.nll_loss(L.log_softmax(t, 1), *a, **o)):
        logits = lamella.Tensor(put(x, device), requires_grad=True)
        y = function(logits, put(labels, device), weight, reduction=reduction)
        (y * y).sum().backward()
        results.append((take(y.data, device), take(logits.grad, device)))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_nll_loss_is_few_launches_and_nothing_waits():
    with lamella.testing.simulator() as sim:
        x = lamella.tensor(np.zeros((4, 10), np.float32), device="simulator", requires_grad=True)
        labels = put(np.array([1, 2, 3, -100]), "simulator")
        sim.reset()
        L.nll_loss(x, labels).backward()
        names = ("nll_losses", "cross_entropy_divisor", "cross_entropy_total", "nll_gradient")
        found = {name: count for name, count in sim.launches.items() if name.startswith(("nll", "cross"))}
        assert found == dict.fromkeys(names, 1)
        assert sim.synchronizations == 0


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_on_images_and_both_gradients(kind, reduction, device):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 5, 3)).astype(np.float32), rng.uniform(0.5, 2, 5).astype(np.float32)
    t = rng.uniform(0, 1, (2, 5, 3)).astype(np.float32) if kind == "probabilities" else rng.integers(0, 5, (2, 3))
    smoothing = 0.0 if kind == "labels" else 0.3
    logits = lamella.Tensor(put(x, device), requires_grad=True)
    targets = lamella.Tensor(put(t, device), requires_grad=kind == "probabilities")
    y = L.cross_entropy(
        logits, targets, put(weight, device), reduction=reduction, label_smoothing=smoothing, z_loss=0.1
    )
    y.sum().backward()

    def rows(a):
        return np.moveaxis(a, 1, -1).reshape(-1, 5) if a.ndim == 3 else a.reshape(-1)

    losses, gradient, _ = reference64(rows(x), rows(t), weight, label_smoothing=smoothing, z_loss=0.1)
    total = 1.0 if reduction == "none" else len(losses) if kind == "probabilities" else weight[t].sum()
    expected = losses.reshape(2, 3) if reduction == "none" else losses.sum() / total
    np.testing.assert_allclose(y.to_numpy(), expected, rtol=2e-6)
    dx = np.moveaxis(gradient.reshape(2, 3, 5), -1, 1) / total
    np.testing.assert_allclose(take(logits.grad, device), dx, atol=1e-6)
    np.testing.assert_array_equal(take(logits.data, device), x)  # though the rows of the gradient overwrote their copy
    if kind == "probabilities":
        wide = x.astype(np.float64)
        log_p = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
        dt = -0.7 * weight[:, None] * log_p / total
        np.testing.assert_allclose(take(targets.grad, device), dt, rtol=1e-5)


# -- errors and choices -------------------------------------------------------------------------------------------


def test_errors_name_argument_rule_and_value(device):
    x, labels = put(np.zeros((2, 3), np.float32), device), put(np.zeros(2, np.int64), device)
    for wrong, kind, message in (
        (lambda: kernels.cross_entropy(labels[:, None], labels), TypeError, "logits must be one of float16.*got int64"),
        (lambda: kernels.cross_entropy(x[0], labels), ValueError, r"logits must have shape \(rows, C\).*got \(3,\)"),
        (lambda: kernels.cross_entropy(x, labels[:1]), ValueError, r"labels must have shape \(2,\).*got \(1,\)"),
        (lambda: kernels.cross_entropy(x, x[:1]), ValueError, r"probabilities must have shape \(2, 3\), got \(1, 3\)"),
        (lambda: kernels.cross_entropy(x, x.astype("float64")), TypeError, "must have the logits' dtype float32"),
        (lambda: kernels.cross_entropy(x, labels, x[0, :2]), ValueError, r"weight must be float32 of shape \(3,\)"),
        (lambda: kernels.cross_entropy(x, labels, reduction="avg"), ValueError, "'mean', 'sum' or 'none', got 'avg'"),
        (lambda: kernels.cross_entropy(x, labels, label_smoothing=2), ValueError, r"must be in \[0, 1\], got 2"),
        (lambda: kernels.cross_entropy(x, labels, z_loss=-1), ValueError, "z_loss must be finite.*got -1"),
        (lambda: kernels.cross_entropy(x, labels, dlogits=x[:1]), ValueError, r"the gradient must be C-contiguous"),
        (lambda: kernels.cross_entropy_backward(x, x, labels), ValueError, r"shape of the loss, \(\), got \(2, 3\)"),
    ):
        with pytest.raises(kind, match=message):
            wrong()


def test_explain_says_what_runs(device):
    x, labels = put(np.zeros((4, 32767), np.float32), device), put(np.zeros(4, np.int64), device)
    said = kernels.explain("cross_entropy", x, labels)
    if device.kind == "cpu":
        assert said == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert "cross_entropy_rows [STREAMED LABELS DTYPE=float VECTOR=4" in said
    assert "is read once" in said
    short = x[:, :10000].copy()
    said = kernels.explain("cross_entropy", short, labels, dlogits=short, label_smoothing=0.1)
    assert "losses and gradient of smoothed" in said
    assert "is read twice" in said
    assert "kept in shared memory" in kernels.explain("cross_entropy", short, labels, dlogits=short)
    said = kernels.explain("cross_entropy_backward", x[0, 0], short, labels, reduction="sum")
    assert "losses and gradient of labels" in said
    assert "logits are not C-contiguous and copied first" in kernels.explain("cross_entropy", x[:, :5], labels)
    assert "no kernel for float64" in kernels.explain("cross_entropy", x.astype("float64"), labels)


def test_every_variant_that_can_be_chosen_is_compiled_and_every_compiled_one_chosen():
    chosen = {("SMALL", f"DTYPE={name}", "THREADS=512") for name in ("float", "half", "bfloat16")}
    size = DeviceSize(227 << 10, 132)
    for kind in ("LABELS", "SMOOTHED", "PROBABILITIES"):
        for dtype in map(np.dtype, DTYPES[:3]):
            for shape in ((2, 16, 9), (2, 17, 9), (2, 40000, 2)):
                (plan,) = module._select_kernel(kind, dtype, shape, True, True, size)
                assert plan.kernel == "cross_entropy_columns"
                chosen.add(plan.defines)
            for cols in (1, 32, 33, 100, 513, 1024, 1025, 2052, 4100, 8192, 9000, 20000, 60000, 1 << 20):
                for agree in (True, False):
                    for gradient in (True, False):
                        plans = module._select_kernel(kind, dtype, (5, cols, 1), agree, gradient, size)
                        assert len(plans) == (2 if cols >= 1 << 15 else 1)
                        (plan,) = module._select_kernel(kind, dtype, (100, cols, 1), agree, gradient, size)
                        chosen |= {plan.defines, plans[0].defines}
                        macros = dict(define.split("=") for define in plan.defines if "=" in define)
                        vector, threads, packs = (int(macros[name]) for name in ("VECTOR", "THREADS", "PACKS"))
                        assert plan.defines[0] == "STREAMED" or cols // vector <= threads * packs
                        assert vector == 1 or threads >= 2 * vector, "head and tail elements need a thread each"
                        assert plan.shared >= (cols // vector * 16 if "CACHED=1" in plan.defines else 0)
    assert chosen == {variant.defines for variant in variants(KERNELS / "cross_entropy.cu")}
    # a row is kept only where the device has the memory, that which the kernel declares itself included
    for shared, cached in ((227 << 10, 1), (48 << 10, 0), (100608, 0)):
        size = DeviceSize(shared, 132)
        (plan,) = module._select_kernel("LABELS", np.dtype(np.float16), (100, 50304, 1), True, True, size)
        assert f"CACHED={cached}" in plan.defines
        assert plan.shared == cached * 100608
