"""Losses: against definitions in float64, against PyTorch's frozen results, at the extremes, and their errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for
from lamella.kernels import cross_entropy_numpy
from lamella.testing.array import activity

from .cases_losses import CASES

# -- PyTorch's results ------------------------------------------------------------------------------------------------
with np.load(Path(__file__).parent / "fixtures/losses.npz", allow_pickle=False) as file:
    NUMBERS = file["numbers"]
    FROZEN: list[dict[str, Any]] = json.loads(file["index"].tobytes())


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def thawed(value: Any, device: Device, dtype: str) -> Any:
    if value == "inf":
        return math.inf
    if not isinstance(value, dict):
        return value
    numbers = NUMBERS[value["start"] : value["start"] + math.prod(value["shape"])].reshape(value["shape"])
    return on(device, numbers.astype(dtype if value["kind"] == "f" else np.int64))


def test_enough_configurations_of_every_function_are_frozen() -> None:
    assert len(FROZEN) >= 120
    own = {"hinge_loss", "linear_cross_entropy"}  # PyTorch has none
    losses = {name for name in L.__all__ if name.endswith(("_loss", "kl_div")) or "entropy" in name} | {
        "cosine_similarity"
    }
    assert {frozen["function"] for frozen in FROZEN} == losses - own


NAN_AT_ZERO = {"kl_div", "poisson_nll_loss"}
FUNCTIONS = sorted({frozen["function"] for frozen in FROZEN})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_and_gradients_are_pytorchs(function: str, dtype: str, device: Device) -> None:
    for number, frozen in enumerate(FROZEN):
        if frozen["function"] != function:
            continue
        args = [thawed(arg, device, dtype) for arg in frozen["args"]]
        inputs = [lamella.Tensor(arg, requires_grad=arg.dtype.kind == "f") for arg in args]
        kwargs = {name: thawed(value, device, dtype) for name, value in frozen["kwargs"].items()}
        value = getattr(L, function)(*inputs, **kwargs)
        assert value.dtype == dtype
        value.backward(thawed(frozen["dy"], device, dtype))
        found = [value.data, *(x.grad for x in inputs)]
        cpu = lamella.device("cpu")
        expected = [thawed(frozen["value"], cpu, "float64")]
        expected += [None if g is None else thawed(g, cpu, "float64") for g in frozen["grads"]]
        rtol, atol = (1e-8, 1e-12) if dtype == "float64" else (2e-5, 2e-6)  # its BCE has float32(1e-12) inside
        for k, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
            if theirs is None:
                continue
            assert mine.dtype == dtype
            mine = backend_for(device).to_numpy(mine)
            assert mine.shape == theirs.shape
            if function in NAN_AT_ZERO and k == 2:  # PyTorch forms 0 * log 0 for a target of 0
                assert np.isfinite(mine).all()
                theirs = np.where(np.isnan(theirs), mine, theirs)
            scale = np.abs(theirs).max() if theirs.size else 0.0
            bound = rtol * np.abs(theirs) + atol * max(1.0, scale)
            assert (np.abs(mine - theirs) <= bound).all(), (number, frozen["kwargs"], k, mine, theirs)  # NaN fails


# -- cross entropy: definitions in float64 ----------------------------------------------------------------------------
def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    z = x - x.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def cross_entropy_definition(
    x: np.ndarray, labels: np.ndarray, weight: np.ndarray, smoothing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Losses of rows and their gradients, one at a time."""
    losses, gradients = np.zeros(len(x)), np.zeros(x.shape)
    log_p = log_softmax(x)
    for row, label in enumerate(labels):
        if label == -100:
            continue
        q = weight * smoothing / x.shape[1]
        q[label] += weight[label] * (1 - smoothing)
        losses[row] = -(q * log_p[row]).sum()
        gradients[row] = q.sum() * np.exp(log_p[row]) - q
    return losses, gradients


# rows x cols: within one chunk, several chunks, several threads, longer than what BLAS sums, a chunk less than a row
SHAPES = [(7, 10), (700, 257), (4100, 130), (40, 5000), (3, 200_000)]


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_chunked_rows_are_the_definition(rows: int, cols: int, smoothing: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((rows, cols)) * scale).astype(np.float32)
    labels = rng.integers(0, cols, rows)
    labels[1::5] = -100
    weight = rng.uniform(0.5, 2, cols).astype(np.float32)
    losses, gradients = cross_entropy_definition(x, labels, weight.astype(np.float64), smoothing)
    logits = lamella.tensor(x, requires_grad=True)
    y = L.cross_entropy(logits, labels, weight, label_smoothing=smoothing)
    y.backward()
    total = weight[labels[labels >= 0]].astype(np.float64).sum()
    assert abs(y.item() - losses.sum() / total) <= 1e-6 * max(1, abs(y.item()))
    assert np.abs(logits.grad - gradients / total).max() <= 2e-6 / total
    with lamella.no_grad():
        each = L.cross_entropy(logits, labels, weight, reduction="none", label_smoothing=smoothing).to_numpy()
    assert each.dtype == np.float32
    assert (np.abs(each - losses) <= 1e-5 + 2e-6 * np.abs(losses)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_of_huge_logits_among_small_ones_changes_nothing_else(threads: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(cross_entropy_numpy, "_PART", 1 << 15)
    before = lamella.backend.get_num_threads()
    lamella.set_num_threads(threads)
    try:
        x = np.random.default_rng(0).standard_normal((2000, 100)).astype(np.float32)
        labels = np.arange(2000) % 100
        expected, _ = cross_entropy_definition(x, labels, np.ones(100), 0.0)
        x[1500] = 1e4
        x[1500, 0] = -np.inf
        found = L.cross_entropy(x, labels, reduction="none").to_numpy()
        assert np.isinf(found[1500]) if labels[1500] == 0 else abs(found[1500] - math.log(99)) < 1e-5
        keep = np.arange(2000) != 1500
        assert np.abs(found - expected)[keep].max() <= 2e-6
    finally:
        lamella.set_num_threads(before)


def test_small_losses_at_large_logits_keep_their_digits() -> None:
    x = np.full((400, 1000), 10, np.float32)
    x[:, 7] = 20  # lse is near 20, the loss near 0.04
    found = L.cross_entropy(x, np.full(400, 7), reduction="none").to_numpy()
    np.testing.assert_allclose(found, math.log1p(999 * math.exp(-10)), rtol=5e-6)


@pytest.mark.parametrize("logit", [-60.0, -200.0, -1e4])
def test_the_loss_of_a_label_whose_exponential_is_lost(logit: float) -> None:
    x = np.zeros((400, 1000), np.float32)
    x[:, 7] = logit
    found = L.cross_entropy(x, np.full(400, 7), reduction="none").to_numpy()
    np.testing.assert_allclose(found, math.log(999) - logit, rtol=1e-6)


def test_the_graph_of_cross_entropy_can_be_walked_twice(device: Device) -> None:
    x = lamella.Tensor(
        on(device, np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)), requires_grad=True
    )
    loss = L.cross_entropy(x, on(device, np.array([0, 2, 1, 1, 0]))) * 3.0
    loss.backward(retain_graph=True)
    once = backend_for(device).to_numpy(x.grad).copy()
    x.grad *= 0.5  # what was handed over is the caller's
    loss.backward()
    np.testing.assert_allclose(backend_for(device).to_numpy(x.grad), 1.5 * once, rtol=1e-6)


def test_inputs_of_cross_entropy_that_are_not_contiguous(device: Device) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 4, (3, 2))
    y = L.cross_entropy(on(device, x).transpose(2, 1, 0), on(device, labels))
    np.testing.assert_allclose(y.item(), L.cross_entropy(x.transpose(2, 1, 0).copy(), labels).item(), rtol=1e-6)
    z = L.cross_entropy(on(device, x)[:, ::2, 0], on(device, np.array([0, 1])))
    np.testing.assert_allclose(z.item(), L.cross_entropy(x[:, ::2, 0].copy(), np.array([0, 1])).item(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["int8", "int32", "int64", "uint8", "uint64"])
def test_labels_of_every_integer_kind(kind: str, device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    y = L.cross_entropy(on(device, x), on(device, np.array([0, 2, 1, 1], kind)))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.item(), -log_softmax(x)[np.arange(4), [0, 2, 1, 1]].mean(), rtol=1e-6)


def test_an_ignored_label_counts_for_nothing_even_where_class_0_is_impossible(device: Device) -> None:
    x = np.array([[-np.inf, 1, 2], [0, 1, 2]], np.float32)
    logits = lamella.Tensor(on(device, x), requires_grad=True)
    loss = L.cross_entropy(logits, on(device, np.array([-100, 1])))
    loss.backward()
    np.testing.assert_allclose(loss.item(), math.log(sum(math.exp(v) for v in (-1, 0, 1))), rtol=1e-6)
    assert (backend_for(device).to_numpy(logits.grad)[0] == 0).all()


@pytest.mark.parametrize("loss", [L.cross_entropy, L.nll_loss])
def test_the_mean_of_nothing_raises_and_the_sum_is_zero(loss: Any) -> None:
    x = np.zeros((2, 3), np.float32)
    ignored = np.array([-100, -100])
    with pytest.raises(ValueError, match=r"mean of no losses is undefined: no label of shape \(2,\) counts"):
        loss(x, ignored)
    with pytest.raises(ValueError, match="mean of no losses"):
        loss(x[:0], ignored[:0])
    with pytest.raises(ValueError, match="mean of no losses"):
        loss(x, np.array([1, 1]), np.array([1, 0, 1], np.float32))
    assert loss(x, ignored, reduction="sum").item() == 0
    assert loss(x[:0], ignored[:0], reduction="sum").item() == 0


def test_nothing_waits_for_the_device_and_wrong_labels_are_nan() -> None:
    with lamella.testing.simulator():
        device = lamella.device("simulator")
        x = lamella.Tensor(on(device, np.ones((3, 4), np.float32)), requires_grad=True)
        wrong, right = on(device, np.array([0, 4, 1])), on(device, np.array([0, -100, 1]))
        none_counts, signs = on(device, np.array([-100] * 3)), on(device, np.array([[1, -1, 0, 1]] * 3))
        weight = on(device, np.ones(4, np.float32))
        activity.reset()
        losses = [
            L.cross_entropy(x, wrong),
            L.cross_entropy(x, wrong, weight, label_smoothing=0.1),
            L.nll_loss(x, wrong),
            L.multi_margin_loss(x, wrong),
            L.cross_entropy(x, none_counts),
            L.hinge_loss(x, signs),
            L.soft_margin_loss(x, signs),
            L.hinge_embedding_loss(x, signs),
            L.margin_ranking_loss(x, -x, signs),
            L.binary_cross_entropy(x * 2, x),
            L.gaussian_nll_loss(x, x, -x),
        ]
        fine = [L.cross_entropy(x, right), L.nll_loss(x, right), L.binary_cross_entropy(x, x)]
        for loss in [*losses, *fine]:
            loss.backward()
        assert activity.synchronizations == 0
        with pytest.raises(ValueError, match=r"(cross_entropy|nll_loss): labels must be in 0 … 3 or -100, got 4"):
            losses[0].item()
        assert all(math.isnan(loss.item()) for loss in losses)
        assert all(math.isfinite(loss.item()) for loss in fine)


# -- all losses -------------------------------------------------------------------------------------------------------
REDUCED = [name for name in CASES if name != "CosineSimilarity"]


@pytest.mark.parametrize("name", REDUCED)
def test_mean_and_sum_are_those_of_the_single_losses(name: str, device: Device) -> None:
    case = CASES[name]
    results = {}
    for reduction in ("none", "sum", "mean"):
        module = case.make().to(device)
        module.reduction = reduction
        results[reduction] = module(*(on(device, x) for x in case.inputs)).to_numpy()
        assert f"reduction={reduction!r}" in repr(module)
    each = results["none"].astype(np.float64)
    np.testing.assert_allclose(results["sum"], each.sum(), rtol=1e-6)
    count = each.size
    if getattr(case.make(), "weight", None) is not None and name in {"CrossEntropyLoss", "NLLLoss"}:
        count = case.make().weight.to_numpy()[case.inputs[1]].sum()
    np.testing.assert_allclose(results["mean"], each.sum() / count, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_sixteen_bits_are_computed_in_float32(name: str, dtype: Any, device: Device) -> None:
    case = CASES[name]
    inputs = [x.astype(dtype) if x.dtype == np.float32 else x for x in case.inputs]
    half = [lamella.Tensor(on(device, x), requires_grad=x.dtype == dtype) for x in inputs]
    wide = [
        lamella.Tensor(on(device, x.astype(np.float32)), requires_grad=True)
        if x.dtype == dtype
        else lamella.Tensor(on(device, x))
        for x in inputs
    ]
    y, z = case.make().to(device, dtype)(*half), case.make().to(device, dtype).to(dtype="float32")(*wide)
    assert y.dtype == dtype
    y.sum().backward()
    z.sum().backward()
    rtol = 2e-3 if dtype == "float16" else 1e-2
    to_numpy = backend_for(device).to_numpy
    np.testing.assert_allclose(to_numpy(y.data).astype(np.float32), to_numpy(z.data), rtol=rtol)
    for a, b in zip(half, wide, strict=True):
        if a.requires_grad and b.grad is not None:
            assert a.grad.dtype == dtype
            np.testing.assert_allclose(to_numpy(a.grad).astype(np.float32), to_numpy(b.grad), rtol=rtol, atol=1e-4)


HUGE = np.array([-1e4, -1e2, 0.5, 1e2, 1e4], np.float32)


@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_binary_cross_entropy_is_exact_at_huge_logits(target: float, device: Device) -> None:
    x = lamella.Tensor(on(device, HUGE), requires_grad=True)
    losses = L.binary_cross_entropy_with_logits(x, on(device, np.full(5, target, np.float32)), reduction="none")
    losses.sum().backward()
    z = HUGE.astype(np.float64)
    log_no, log_yes = -np.logaddexp(0, z), -np.logaddexp(0, -z)
    np.testing.assert_allclose(losses.to_numpy(), -(target * log_yes + (1 - target) * log_no), rtol=1e-6, atol=1e-38)
    expected = (1 - target) * np.exp(log_yes) - target * np.exp(log_no)
    np.testing.assert_allclose(backend_for(device).to_numpy(x.grad), expected, rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("t", [-1, 1])
def test_margins_are_exact_at_huge_logits(t: int, device: Device) -> None:
    targets = on(device, np.full(5, t))
    z = t * HUGE.astype(np.float64)
    for loss, value, slope in (
        (L.soft_margin_loss, np.logaddexp(0, -z), -t * np.exp(-np.logaddexp(0, z))),
        (L.hinge_loss, np.maximum(0, 1 - z), np.where(z < 1, -t, 0)),
    ):
        x = lamella.Tensor(on(device, HUGE), requires_grad=True)
        losses = loss(x, targets, reduction="none")
        losses.sum().backward()
        np.testing.assert_allclose(losses.to_numpy(), value, rtol=1e-6, atol=1e-38)
        np.testing.assert_allclose(backend_for(device).to_numpy(x.grad), slope, rtol=1e-6, atol=1e-38)


def test_hinge_loss_at_its_kink_is_flat(device: Device) -> None:
    x = lamella.Tensor(on(device, np.array([1.0, -1.0, 0.0], np.float32)), requires_grad=True)
    loss = L.hinge_loss(x, on(device, np.array([1.0, -1.0, 1.0], np.float32)), reduction="sum")
    loss.backward()
    assert loss.item() == 1
    assert backend_for(device).to_numpy(x.grad).tolist() == [0, 0, -1]


def test_what_the_bounds_of_poisson_and_squared_error_lose_is_infinite_without_a_warning(device: Device) -> None:
    x = lamella.Tensor(on(device, HUGE), requires_grad=True)
    loss = L.poisson_nll_loss(x, on(device, np.ones(5, np.float32)), reduction="none")
    loss.sum().backward()
    assert np.isposinf(loss.to_numpy()[-1])
    assert np.isposinf(backend_for(device).to_numpy(x.grad)[-1])
    half = on(device, HUGE.astype(np.float16))
    assert np.isposinf(L.mse_loss(half, half * 0, "none").to_numpy()[[0, -1]]).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: L.cosine_similarity(x, y, eps=1.5),  # above some of the lengths
        lambda x, y: L.cosine_embedding_loss(x, y, np.array([-1, -1, 1, -1, -1, -1]), margin=0.3),
        lambda x, y: L.triplet_margin_loss(x, y, x * y, p=2.5, swap=True),
    ],
)
def test_gradients_beyond_the_frozen_ones(loss: Any) -> None:
    rng = np.random.default_rng(0)
    gradcheck(loss, rng.standard_normal((6, 3)), rng.standard_normal((6, 3)))


def test_equal_distances_of_a_swapped_triplet_share_the_gradient(device: Device) -> None:
    points = ([[0.0, 0.0]], [[2.0, 0.0]], [[1.0, 3.0]])  # the last is as far from the first as from the second
    a, p, n = (lamella.Tensor(on(device, np.array(x)), requires_grad=True) for x in points)
    L.triplet_margin_loss(a, p, n, margin=5.0, eps=0.0, swap=True).backward()
    far = 1 / math.sqrt(10)
    expected = ([[-1 + 0.5 * far, 1.5 * far]], [[1 - 0.5 * far, 1.5 * far]], [[0.0, -3 * far]])
    for x, gradient in zip((a, p, n), expected, strict=True):
        np.testing.assert_allclose(backend_for(device).to_numpy(x.grad), gradient, atol=1e-12)


# -- errors -----------------------------------------------------------------------------------------------------------
X, T = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)
LABELS = np.array([0, 1, 2])
ONES = np.ones((3, 4), int)

ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: L.cross_entropy(X, np.zeros(4, int)), ValueError, r"labels \(N, ...\).*got \(3, 4\) and \(4,\)"),
    (lambda: L.cross_entropy(X[0], LABELS), ValueError, r"logits must have shape \(N, C, ...\), got \(4,\)"),
    (lambda: L.cross_entropy(X, np.array([0, 4, 1])), ValueError, "labels must be in 0 ... 3 or -100, got 4"),
    (lambda: L.cross_entropy(X, np.array([0, -1, 1])), ValueError, "labels must be in 0 ... 3 or -100, got -1"),
    (lambda: L.cross_entropy(X, np.zeros(3)), TypeError, "labels must be integers, got float64"),
    (lambda: L.cross_entropy(X, T.astype(np.float64)), TypeError, "logits' dtype float32, got float64"),
    (lambda: L.cross_entropy(X.astype(int), LABELS), TypeError, "logits must be floating, got int64"),
    (lambda: L.cross_entropy(X, LABELS, np.ones(3, np.float32)), ValueError, r"shape \(4,\), got float32 of \(3,\)"),
    (lambda: L.cross_entropy(X, LABELS, np.ones(4)), ValueError, r"weight must be float32 .* got float64"),
    (
        lambda: L.cross_entropy(X, LABELS, label_smoothing=1.5),
        ValueError,
        r"label_smoothing must be in \[0, 1\], got 1",
    ),
    (lambda: L.cross_entropy(X, LABELS, reduction="avg"), ValueError, "reduction must be one of 'mean', 'sum', 'none'"),
    (lambda: L.CrossEntropyLoss(reduction="avg"), ValueError, "CrossEntropyLoss: reduction must be one of"),
    (lambda: L.KLDivLoss(reduction="avg"), ValueError, "KLDivLoss: reduction must be .*'batchmean', got 'avg'"),
    (lambda: L.nll_loss(X, np.array([0, 9, 1])), ValueError, "nll_loss: labels must be in 0 ... 3 or -100, got 9"),
    (lambda: L.multi_margin_loss(X, np.array([0, -1, 1])), ValueError, "labels must be in 0 ... 3, got -1"),
    (lambda: L.multi_margin_loss(X, LABELS, p=3), ValueError, "p must be 1 or 2, got 3"),
    (lambda: L.mse_loss(X, T[:, :1]), ValueError, r"one shape, got \(3, 4\) and \(3, 1\)"),
    (lambda: L.mse_loss(X, T.astype(np.float64)), TypeError, "one dtype, got float32 and float64"),
    (lambda: L.mse_loss(X[:0], T[:0]), ValueError, r"the mean of no losses is undefined, got shape \(0, 4\)"),
    (lambda: L.mse_loss(X, T, weight=np.ones(4, np.float32)), ValueError, r"the shape \(3, 4\), got \(4,\)"),
    (lambda: L.l1_loss(X, T[0]), ValueError, r"l1_loss: prediction and targets .* \(3, 4\) and \(4,\)"),
    (lambda: L.l1_loss(X[:0], T[:0]), ValueError, "mean of no losses"),
    (lambda: L.huber_loss(X, T, delta=0.0), ValueError, "delta must be above 0, got 0"),
    (lambda: L.smooth_l1_loss(X, T, beta=-1.0), ValueError, "beta must not be negative, got -1"),
    (lambda: L.binary_cross_entropy(X + 1.5, T), ValueError, r"probabilities must be in \[0, 1\], got 1.5 ... 1.5"),
    (
        lambda: L.binary_cross_entropy_with_logits(X, T, pos_weight=np.ones(3, np.float32)),
        ValueError,
        r"pos_weight must have a shape that broadcasts to \(3, 4\), got \(3,\)",
    ),
    (lambda: L.binary_cross_entropy_with_logits(X, T[:1]), ValueError, r"logits and targets .* \(3, 4\) and \(1, 4\)"),
    (lambda: L.gaussian_nll_loss(X, T, T[:2]), ValueError, r"var must have shape \(3, 4\).* got \(2, 4\)"),
    (lambda: L.gaussian_nll_loss(X, T, T - 1), ValueError, "var must not be negative, got -1"),
    (lambda: L.hinge_loss(X, ONES * 0), ValueError, "targets must be -1 or 1, got 0"),
    (lambda: L.hinge_loss(X, ONES[:, 0]), ValueError, r"one shape, got \(3, 4\) and \(3,\)"),
    (lambda: L.cosine_embedding_loss(X, T, ONES), ValueError, r"targets \(N,\).* got \(3, 4\) and \(3, 4\)"),
    (lambda: L.cosine_similarity(X, T, axis=2), ValueError, "axis must be in -2 ... 1, got 2"),
    (lambda: L.margin_ranking_loss(X, T, ONES[0]), ValueError, r"shape \(3, 4\), got \(4,\)"),
    (lambda: L.triplet_margin_loss(X, T, T[:, :2]), ValueError, r"anchor and negative .* \(3, 4\) and \(3, 2\)"),
    (lambda: L.triplet_margin_loss(X, T, T, p=0.5), ValueError, "p must be at least 1, got 0.5"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_name_the_argument_and_the_value(number: int) -> None:
    call, kind, message = ERRORS[number]
    with pytest.raises(kind, match=message):
        call()


def test_class_weights_move_with_the_module_and_are_stored(device: Device) -> None:
    module = L.CrossEntropyLoss(weight=np.array([1, 2, 3], np.float32)).to(device, "float64")
    assert module.weight.dtype == np.float64
    assert module.weight.device == device
    assert list(module.state_dict()) == ["weight"]
    assert list(module.parameters()) == []


def test_a_label_beyond_int64_is_out_of_range_and_not_ignored() -> None:
    labels = np.array([0, 2**64 - 100], np.uint64)  # -100 if its bits were taken for int64
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\.\. 1 or -100, got 9223372036854775807"):
        L.cross_entropy(np.ones((2, 2), np.float32), labels)


def test_hinge_embedding_of_infinite_distances_is_the_limit() -> None:
    losses = L.hinge_embedding_loss(np.float32([np.inf, -np.inf]), np.array([-1, 1]), reduction="none")
    np.testing.assert_array_equal(losses.to_numpy(), [0, -np.inf])
