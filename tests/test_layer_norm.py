"""Layer norm, RMS norm, also with dropout and a residual in front, on every device: accuracy, choices, launches."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for, random_bits
from lamella.kernels import _norm_cuda
from lamella.testing import assert_close

from .test_softmax import unit

BF16 = np.dtype(ml_dtypes.bfloat16)
EPS = 1e-5


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def on(device: Device, *arrays: np.ndarray) -> tuple[Any, ...]:
    return tuple(backend_for(device).from_numpy(a, device) for a in arrays)


def host(device: Device, *arrays: Any) -> list[np.ndarray]:
    return [np.asarray(backend_for(device).to_numpy(a)).astype(np.float64) for a in arrays]


def forward64(x: Any, w: Any, b: Any, centred: bool) -> np.ndarray:
    x, w, b = (np.asarray(a, np.float64) for a in (x, w, b))
    with np.errstate(invalid="ignore"):
        c = x - x.mean(-1, keepdims=True) if centred else x
        return c / np.sqrt((c * c).mean(-1, keepdims=True) + EPS) * w + b


def backward64(dy: Any, x: Any, w: Any, centred: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dy, x, w = (np.asarray(a, np.float64) for a in (dy, x, w))
    c = x - x.mean(-1, keepdims=True) if centred else x
    r = 1 / np.sqrt((c * c).mean(-1, keepdims=True) + EPS)
    n, g = c * r, dy * w
    dx = r * (g - n * (g * n).mean(-1, keepdims=True) - (g.mean(-1, keepdims=True) if centred else 0))
    return dx, (dy * n).sum(0), dy.sum(0)


def within_twice(found: np.ndarray, expected: np.ndarray, plain: np.ndarray, floor: Any) -> None:
    """NaN exactly where expected; each row's error is at most twice the plain definition's, and one rounding more."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    good = ~np.isnan(expected)
    errors, plains = (np.where(good, abs(a - expected), 0).reshape(len(expected), -1).max(1) for a in (found, plain))
    assert (errors <= 2 * plains + floor).all(), (errors, plains, floor)


SIZES = [1, 33, 1025, *(pytest.param(n, marks=pytest.mark.slow) for n in (31, 32, 1023, 1024, 4097, 50257))]
DTYPES = [
    np.dtype(np.float32),
    pytest.param(np.dtype(np.float16), marks=pytest.mark.slow),
    pytest.param(BF16, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cols", SIZES)
@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
def test_errors_are_at_most_twice_the_plain_definitions(centred: bool, cols: int, dtype: Any, device: Device) -> None:
    """Rows: ordinary, far from 0, constant, with an infinity, with a NaN, which stays where it is."""
    x = normal(6, cols) * 3
    x[1] = normal(cols, seed=5) + (1e4 if dtype == np.float32 else 200)
    x[2] = 7.0
    x[3, cols // 2] = np.inf
    x[4, 0] = np.nan
    x, dy = x.astype(dtype), normal(6, cols, seed=1).astype(dtype)
    w, b = (normal(cols, seed=s).astype(dtype) for s in (2, 3))
    step = unit(dtype)
    with np.errstate(all="ignore"):
        if centred:
            y = kernels.layer_norm(*on(device, x, w, b), EPS)[0]
            plain = kernels.layer_norm_definition(x, w, b, EPS)[0]
        else:
            b = np.zeros_like(b)
            y = kernels.rms_norm(*on(device, x, w), EPS)[0]
            plain = kernels.rms_norm_definition(x, w, EPS)[0]
        expected = forward64(x, w, b, centred)
        size = np.nanmax(np.where(np.isfinite(expected), abs(expected), 0), axis=1)
    floor = 2 * step * (size + abs(b.astype(float)).max())
    within_twice(host(device, y)[0], expected, plain.astype(np.float64), floor)

    rows = [0, 1, 5]
    x, dy = x[rows], dy[rows]
    if centred:
        stats = kernels.layer_norm_definition(x, w, b, EPS)[1:]
        found = kernels.layer_norm_backward(*on(device, dy, x, *stats, w))
        plain = kernels.layer_norm_backward_definition(dy, x, *stats, w)
    else:
        stats = kernels.rms_norm_definition(x, w, EPS)[1:]
        found = kernels.rms_norm_backward(*on(device, dy, x, *stats, w))
        plain = kernels.rms_norm_backward_definition(dy, x, *stats, w)
    wanted = backward64(dy, x, w, centred)
    for name, a, e, p in zip(("dx", "dweight", "dbias"), found, wanted, plain, strict=False):
        per_row = name == "dx"
        scale = np.abs(e).reshape(3 if per_row else 1, -1).max(1)
        if cols == 1:  # the gradient is 0 but for eps, a difference of large numbers
            scale = scale + np.abs(dy.astype(np.float64) * w.astype(np.float64)).max() * 320
        a, e, p = (v.reshape(len(scale), -1) for v in (host(device, a)[0], e, p.astype(np.float64)))
        within_twice(a, e, p, 4 * step * scale)


# Every rung of the ladders, packed and with single elements, and what does not fit: rows, columns, kernels.
REACHED = [
    (9, 3, "REGISTERS V1 T1", "REGISTERS V1 T1"),
    (9, 64, "REGISTERS V4 T8", "REGISTERS V4 T8"),
    (3, 31, "REGISTERS V1 T8", "REGISTERS V1 T8"),
    (3, 512, "REGISTERS V4 T32", "REGISTERS V4 T32"),
    (3, 255, "REGISTERS V1 T32", "REGISTERS V1 T32"),
    (3, 2048, "REGISTERS V4 T128", "REGISTERS V4 T128"),
    (3, 2047, "REGISTERS V1 T256", "REGISTERS V1 T256"),
    pytest.param(2, 8192, "REGISTERS V4 T512", "REGISTERS V4 T512", marks=pytest.mark.slow),
    pytest.param(2, 4095, "REGISTERS V1 T1024", "REGISTERS V1 T1024", marks=pytest.mark.slow),
    pytest.param(2, 16384, "REGISTERS V4 T512", "SPLIT V4 T512", marks=pytest.mark.slow),
    (64, 16388, "SHARED V4 T512", "SPLIT V4 T512"),
    (64, 4097, "SHARED V1 T512", "SPLIT V1 T256"),
    pytest.param(2, 16388, "SPLIT V4 T512", "SPLIT V4 T512", marks=pytest.mark.slow),
    pytest.param(2, 4097, "SPLIT V1 T512", "SPLIT V1 T256", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("rows", "cols", "forward", "backward"), REACHED)
def test_every_variant_is_chosen_and_launched(rows: int, cols: int, forward: str, backward: str) -> None:
    """The shared-memory rows and the widest are only asked for here: they run in the kernels' own tests."""
    with lamella.testing.simulator() as sim:
        device = lamella.device("simulator")
        x = on(device, np.ones((rows, cols), np.float32))[0]
        words = [kernels.explain("layer_norm", x), kernels.explain("layer_norm_backward", x, x, None, None)]
        for said, want, name in zip(words, (forward, backward), ("FORWARD", "BACKWARD"), strict=True):
            kind, vector, threads = want.split()
            assert f"[{name}_{kind} DTYPE=float VECTOR={vector[1:]} THREADS={threads[1:]} " in said
        if rows * cols > 10**5:
            return
        _, mean, rstd = kernels.layer_norm(x)
        kernels.layer_norm_backward(x, x, mean, rstd)
        assert set(sim.launches) == {part.split()[0] for said in words for part in said.split("; then ")}


@pytest.mark.slow
def test_the_shared_variant_is_launched_from_the_public_function() -> None:
    x = normal(64, 4097).astype(np.float32)
    with lamella.testing.simulator() as sim:
        y = kernels.layer_norm(*on(lamella.device("simulator"), x))[0]
        assert sim.launches == {"norm_forward_shared": 1}
        assert_close(y, forward64(x, 1.0, 0.0, True), atol=1e-5)


def test_explain_says_why_nothing_or_nothing_faster_runs(device: Device) -> None:
    x = on(device, np.ones((2, 8), np.float32))[0]
    said = kernels.explain("rms_norm", x)
    if device.kind == "cpu":
        assert said == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert "fits the registers of 8 threads" in said
    assert "norm_backward_columns" in kernels.explain("rms_norm_backward", x, x, None)
    assert "no multiple of 4" in kernels.explain("layer_norm", x[:, :7])
    assert "there is no kernel for float64" in kernels.explain("layer_norm", x.astype("float64"))
    assert "the array is empty" in kernels.explain("layer_norm", x[:0])
    wide = on(device, np.ones(33, np.float32))[0]
    assert "16-byte boundary" in kernels.explain("layer_norm", wide[1:].reshape(4, 8))
    assert "FUSED=1" in kernels.explain("dropout_add_layer_norm", x, x)
    assert "FUSED=1" in kernels.explain("dropout_add_rms_norm", x, x)
    assert "BACKWARD_REGISTERS" in kernels.explain("dropout_add_layer_norm_backward", x, x, None, None)
    assert "BACKWARD_REGISTERS" in kernels.explain("dropout_add_rms_norm_backward", x, x, None)


def test_rows_longer_than_shared_memory_are_cut() -> None:
    call = _norm_cuda.Rows(np.dtype(np.float32), 10**4, 2**20, True, shared=227 << 10)
    plans = _norm_cuda.select_forward(call)
    assert [plan.kernel for plan in plans] == ["norm_forward_pieces", "norm_forward_apply"]
    assert "it fits no block's memory" in str(plans)
    small = _norm_cuda.select_forward(call._replace(cols=20000, shared=64 << 10))
    assert [plan.kernel for plan in small] == ["norm_forward_pieces", "norm_forward_apply"]


def test_a_layer_is_one_launch_forward_and_two_backward() -> None:
    with lamella.testing.simulator() as sim:
        device = lamella.device("simulator")
        x, residual = (lamella.tensor(normal(5, 64), dtype="float32", device=device, requires_grad=True) for _ in "ab")
        for norm in (L.LayerNorm(64).to(device), L.RMSNorm(64).to(device)):
            sim.reset()
            y = norm(x)
            assert sim.launches == {"norm_forward_registers": 1}
            y.backward(y)
            assert sim.launches == {
                "norm_forward_registers": 1,
                "norm_backward_registers": 1,
                "norm_backward_columns": 1,
            }
            assert sim.synchronizations == 0
        sim.reset()
        y, total = L.dropout_add_layer_norm(x, residual, 64, p=0.3)
        assert sim.launches == {"norm_forward_registers": 1}
        (y + total).backward(y)
        assert sim.launches["norm_backward_registers"] == sim.launches["norm_backward_columns"] == 1


# -- dropout and a residual in front ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BF16], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
def test_the_fused_form_is_its_parts(centred: bool, p: float, dtype: Any, device: Device) -> None:
    rows, cols, place = 5, 12, (77, 2**33 + 2)
    dropout = kernels.Dropout(p, *place)
    x, residual, dy, dtotal = (normal(rows, cols, seed=s).astype(dtype) for s in range(4))
    w, b = (normal(cols, seed=s).astype(dtype) for s in (5, 6))
    keep = (random_bits(*place, x.size) >= round(p * 2**32)).reshape(x.shape) / ((1 - p) or np.inf)
    expected = x.astype(np.float64) * keep + residual.astype(np.float64)
    here = on(device, x, residual, w)
    if centred:
        y, total, *stats = kernels.dropout_add_layer_norm(*here, *on(device, b), EPS, dropout)
    else:
        b = np.zeros_like(b)
        y, total, *stats = kernels.dropout_add_rms_norm(*here, EPS, dropout)
    step = unit(dtype) if dtype != np.float64 else 1e-16
    assert y.dtype == total.dtype == dtype
    assert_close(total, expected, rtol=2 * step, atol=4 * 6e-8 if dtype != np.float64 else 1e-15)
    held = host(device, total)[0]
    assert_close(y, forward64(held, w, b, centred), rtol=2 * step, atol=20 * min(step, 6e-8))

    backward = kernels.dropout_add_layer_norm_backward if centred else kernels.dropout_add_rms_norm_backward
    dx, dresidual, dweight, *dbias = backward(*on(device, dy), total, *stats, *here[2:], *on(device, dtotal), dropout)
    dz, *rest = backward64(dy, held, w, centred)
    dz += dtotal.astype(np.float64)
    atol = 4 * step if dtype.itemsize == 2 else 200 * step  # the definition rounds the norm's gradient before it adds
    slack = {"rtol": 2 * step, "atol": atol}
    assert_close(dresidual, dz, **slack)
    assert_close(dx, dz * keep, rtol=4 * step, atol=2 * atol)
    for found, want in zip((dweight, *dbias), rest, strict=False):
        assert_close(found, want, **slack)


def test_many_rows_take_chunks_and_threads_on_the_cpu() -> None:
    rows, cols, p, place = 3000, 300, 0.25, (3, 9)
    x, residual, dy = (normal(rows, cols, seed=s).astype(np.float32) for s in range(3))
    keep = (random_bits(*place, x.size) >= round(p * 2**32)).reshape(x.shape) / (1 - p)
    before = lamella.backend.get_num_threads()
    try:
        for count in (1, 2):
            lamella.set_num_threads(count)
            y, total, mean, rstd = kernels.dropout_add_layer_norm(
                x, residual, eps=EPS, dropout=kernels.Dropout(p, *place)
            )
            assert_close(total, x * keep + residual, atol=1e-6)
            assert_close(y, forward64(total, 1.0, 0.0, True), atol=1e-5)
            dx, dresidual, *_ = kernels.dropout_add_layer_norm_backward(
                dy, total, mean, rstd, None, dy, kernels.Dropout(p, *place)
            )
            dz = backward64(dy, total, 1.0, True)[0] + dy
            assert_close(dresidual, dz, atol=2e-5)
            assert_close(dx, dz * keep, atol=3e-5)
    finally:
        lamella.set_num_threads(before)


@pytest.mark.parametrize("training", [True, False])
def test_the_layer_draws_the_mask_of_dropout(training: bool, device: Device) -> None:
    x, residual = (lamella.tensor(normal(6, 3, 8, seed=s), dtype="float32", device=device) for s in (0, 1))
    norm = L.LayerNorm((3, 8)).to(device)
    one, other = lamella.Generator(4), lamella.Generator(4)
    options = {"training": training}
    y, total = L.dropout_add_layer_norm(x, residual, (3, 8), norm.weight, norm.bias, 1e-5, 0.4, rng=one, **options)
    expected = L.dropout(x, 0.4, rng=other, **options) + residual
    assert_close(total.to_numpy(), expected.to_numpy(), atol=5e-7)
    assert_close(y.to_numpy(), norm(expected).to_numpy(), atol=5e-6)
    assert one.state == other.state
    rms, total = L.dropout_add_rms_norm(x, residual, (3, 8), None, 1e-6, 0.4, rng=one, **options)
    expected = L.dropout(x, 0.4, rng=other, **options) + residual
    assert_close(rms.to_numpy(), L.rms_norm(expected, (3, 8), eps=1e-6).to_numpy(), atol=5e-6)


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("use", ["y", "total", "both"])
def test_fused_derivatives_agree_with_central_differences(use: str, p: float, device: Device) -> None:
    def layer(x: Any, residual: Any, w: Any, b: Any) -> Any:
        rng = lamella.Generator(2)
        y, total = L.dropout_add_layer_norm(x, residual, (3, 4), w, b, 1e-3, p, rng=rng)
        z, other = L.dropout_add_rms_norm(x, residual, (3, 4), w, 1e-3, p, rng=rng)
        return {"y": y + z, "total": total * total + other, "both": y * total + z * other}[use]

    arrays = on(device, normal(2, 3, 4), normal(2, 3, 4, seed=1), normal(3, 4, seed=2), normal(3, 4, seed=3))
    gradcheck(layer, *arrays)


def test_without_dropout_the_two_gradients_do_not_run_into_each_other(device: Device) -> None:
    """They are one array; what is added to one of them must not show in the other."""
    x, residual = (
        lamella.tensor(normal(2, 8, seed=s), dtype="float32", device=device, requires_grad=True) for s in (0, 1)
    )
    y, _ = L.dropout_add_layer_norm(x, residual, 8)
    dy = lamella.tensor(normal(2, 8, seed=2), dtype="float32", device=device)
    (y * dy).sum().backward()
    first, second = host(device, x.grad, residual.grad)
    np.testing.assert_array_equal(first, second)
    (x * 3.0).sum().backward()
    now, still = host(device, x.grad, residual.grad)
    assert_close(now, first + 3, atol=1e-6)
    np.testing.assert_array_equal(still, second)


def test_dropout_without_a_residual(device: Device) -> None:
    x = normal(4, 8).astype(np.float32)
    total = kernels.dropout_add_layer_norm(*on(device, x), dropout=kernels.Dropout(0.5, 1, 0))[1]
    keep = (random_bits(1, 0, 32) >= 2**31).reshape(4, 8)
    np.testing.assert_array_equal(host(device, total)[0], x * keep * 2.0)
    plain = kernels.dropout_add_rms_norm(*on(device, x))[1]
    np.testing.assert_array_equal(host(device, plain)[0], x)
    assert plain is not x


def test_an_empty_batch_has_an_empty_norm(device: Device) -> None:
    x = on(device, np.zeros((0, 4), np.float32))[0]
    y, total, mean, rstd = kernels.dropout_add_layer_norm(x, x, dropout=kernels.Dropout(0.5, 0, 0))
    dx, dresidual, dweight, dbias = kernels.dropout_add_layer_norm_backward(y, total, mean, rstd, None, total)
    assert y.shape == total.shape == dx.shape == dresidual.shape == (0, 4)
    np.testing.assert_array_equal(host(device, dweight, dbias), np.zeros((2, 4)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: kernels.dropout_add_layer_norm(x, dropout=kernels.Dropout(1.5, 0, 0)),
            ValueError,
            r"p must be in \[0, 1\], got 1.5",
        ),
        (lambda x: kernels.dropout_add_layer_norm(x, x[:1]), ValueError, "residual must be float64 of shape"),
        (
            lambda x: kernels.dropout_add_rms_norm_backward(x, x, x[:, 0], None, x[:1]),
            ValueError,
            "dtotal must be float64 of shape",
        ),
        (lambda x: L.dropout_add_layer_norm(x, x[:1], 4), ValueError, "residual must have the shape of x"),
        (lambda x: L.dropout_add_layer_norm(x, x, 3), ValueError, r"x must have shape \(..., 3\)"),
        (lambda x: L.dropout_add_rms_norm(x, x, 4, np.ones(3)), ValueError, r"weight must have shape \(4,\)"),
        (lambda x: L.dropout_add_rms_norm(x, x, 4, p="a"), TypeError, "p must be a number"),
    ],
)
def test_bad_input_is_refused_with_its_name_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.ones((2, 4)))
