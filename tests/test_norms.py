"""LayerNorm, RMSNorm and GroupNorm against their definitions in float64, on awkward shapes and values."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for, get_num_threads
from lamella.testing import assert_close

BF16 = np.dtype(ml_dtypes.bfloat16)
Arrays = tuple[Any, ...]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def normalised(x: np.ndarray, axis: tuple[int, ...], eps: float, centre: bool = True) -> np.ndarray:
    x = x.astype(np.float64)
    c = x - x.mean(axis, keepdims=True) if centre else x
    return c / np.sqrt((c * c).mean(axis, keepdims=True) + eps)


def backward64(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, axis: tuple[int, ...], eps: float, centre: bool = True
) -> np.ndarray:
    """dx by the Jacobian of the definition; ``w`` broadcasts against ``x``."""
    n, g = normalised(x, axis, eps, centre), dy.astype(np.float64) * w
    x = x.astype(np.float64)
    c = x - x.mean(axis, keepdims=True) if centre else x
    dx = g - n * (g * n).mean(axis, keepdims=True)
    if centre:
        dx -= g.mean(axis, keepdims=True)
    return dx / np.sqrt((c * c).mean(axis, keepdims=True) + eps)


def on(device: Device, *arrays: np.ndarray) -> Arrays:
    return tuple(backend_for(device).from_numpy(a, device) for a in arrays)


# (1, 300000) and (70000, 3) take several chunks; 2049 is a row longer than any that is summed in one go
SHAPES = [(1, 1), (1, 7), (5, 1), (0, 4), (3, 33), (129, 1024), (600, 513), (3, 2049), (1, 300000), (70000, 3)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_norm_keeps_its_definition(shape: tuple[int, int], dtype: str, device: Device) -> None:
    if device.kind != "cpu" and shape[0] * shape[1] > 10**5:
        pytest.skip("the definition is the same for every length")
    x, dy = normal(*shape).astype(dtype), normal(*shape, seed=1).astype(dtype)
    w, b = (normal(shape[1], seed=s).astype(dtype) for s in (2, 3))
    y, mean, rstd = kernels.layer_norm(*on(device, x, w, b))
    dx, dweight, dbias = kernels.layer_norm_backward(*on(device, dy, x), mean, rstd, *on(device, w))
    n = normalised(x, (1,), 1e-5)
    unit = float(np.finfo(dtype).eps)
    assert y.dtype == dx.dtype == dweight.dtype == dtype
    slack = unit * (8 + np.sqrt(shape[1]) / 8)  # the error of a sum grows more slowly than the root of its length
    sharp = backend_for(device).to_numpy(rstd).astype(np.float64)[:, None]  # what rounding of x is multiplied by
    size = np.abs(x).max(axis=1, keepdims=True) * sharp + 1 if x.size else 1.0
    to_numpy = backend_for(device).to_numpy
    assert_close((to_numpy(y) - (n * w + b)) / size, np.zeros(shape), atol=slack * np.abs(w).max(), name="y")
    expected = backward64(dy, x, w, (1,), 1e-5)
    assert_close((to_numpy(dx) - expected) / (size * sharp), np.zeros(shape), atol=slack * 20, name="dx")
    slack = unit * (8 + np.sqrt(shape[0]))
    largest = float(np.max(size, initial=1.0))
    assert_close(dweight, (dy * n).sum(0), rtol=slack, atol=slack * 40 * largest, name="dweight")
    assert_close(dbias, dy.astype(np.float64).sum(0), rtol=slack, atol=slack * 40, name="dbias")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm_keeps_its_definition(shape: tuple[int, int], dtype: str, device: Device) -> None:
    if device.kind != "cpu" and shape[0] * shape[1] > 10**5:
        pytest.skip("the definition is the same for every length")
    x, dy = normal(*shape).astype(dtype) + 1, normal(*shape, seed=1).astype(dtype)
    x = x.astype(dtype)
    w = normal(shape[1], seed=2).astype(dtype)
    y, rstd = kernels.rms_norm(*on(device, x, w), eps=1e-6)
    dx, dweight = kernels.rms_norm_backward(*on(device, dy, x), rstd, *on(device, w))
    n = normalised(x, (1,), 1e-6, centre=False)
    unit = float(np.finfo(dtype).eps)
    slack = unit * (8 + np.sqrt(shape[1]) / 8)
    assert_close(y, n * w, rtol=slack, atol=slack, name="y")
    sharp = float(backend_for(device).to_numpy(rstd).max(initial=1.0))
    expected = backward64(dy, x, w, (1,), 1e-6, centre=False)
    assert_close(dx, expected, atol=slack * 8 * sharp * np.abs(dy * w).max(initial=1.0), name="dx")
    slack = unit * (8 + np.sqrt(shape[0]))
    assert_close(dweight, (dy * n).sum(0), rtol=slack, atol=slack * 40, name="dweight")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((1, 1, 3), 1), ((2, 6), 3), ((0, 4, 3), 2), ((3, 8, 5, 7), 4), ((2, 6, 31), 6), ((9, 32, 40, 40), 8)],
    ids=str,
)
def test_group_norm_keeps_its_definition(shape: tuple[int, ...], groups: int, dtype: str, device: Device) -> None:
    x, dy = normal(*shape).astype(dtype), normal(*shape, seed=1).astype(dtype)
    w, b = (normal(shape[1], seed=s).astype(dtype) for s in (2, 3))
    y, mean, rstd = kernels.group_norm(on(device, x)[0], groups, *on(device, w, b))
    dx, dweight, dbias = kernels.group_norm_backward(*on(device, dy, x), mean, rstd, *on(device, w))
    split = (shape[0], groups, shape[1] // groups, int(np.prod(shape[2:])))
    wide, wide_dy, wide_w = x.reshape(split), dy.reshape(split), w.reshape(1, groups, -1, 1)
    n = normalised(wide, (2, 3), 1e-5)
    slack = float(np.finfo(dtype).eps) * (8 + np.sqrt(x.size))
    assert_close(y, (n * wide_w + b.reshape(wide_w.shape)).reshape(shape), rtol=slack, atol=slack, name="y")
    expected = backward64(wide_dy, wide, wide_w, (2, 3), 1e-5).reshape(shape)
    sharp = float(backend_for(device).to_numpy(rstd).max(initial=1.0))
    assert_close(dx, expected, atol=slack * 8 * sharp, name="dx")
    assert_close(dweight, (wide_dy * n).sum((0, 3)).reshape(-1), rtol=slack, atol=slack * 40, name="dweight")
    assert_close(dbias, wide_dy.astype(np.float64).sum((0, 3)).reshape(-1), rtol=slack, atol=slack * 40, name="dbias")


@pytest.mark.parametrize("centre", [1e3, 1e4, -3e4])
def test_a_large_mean_costs_the_variance_nothing(centre: float, device: Device) -> None:
    x = (normal(4, 300) + centre).astype(np.float32)
    (xs,) = on(device, x)
    expected = normalised(x, (1,), 1e-5)
    rounding = abs(centre) * 6e-8 * 4  # of the mean itself, which moves every value alike
    assert_close(kernels.layer_norm(xs)[0], expected, atol=rounding + 1e-5)
    assert_close(kernels.group_norm(xs.reshape(4, 3, 100), 1)[0].reshape(4, 300), expected, atol=rounding + 1e-5)


@pytest.mark.parametrize("cols", [64, 768, 4096])
@pytest.mark.parametrize("centre", [10.0, 1e3, -3e4])
def test_a_large_mean_is_no_worse_than_in_the_definition(centre: float, cols: int, device: Device) -> None:
    x = (normal(4, cols) + centre).astype(np.float32)
    wide = x.astype(np.float64)
    expected = normalised(wide, (1,), 1e-5)
    plain, mean, _ = kernels.layer_norm_definition(x, None, None, 1e-5)
    y, found, _ = (backend_for(device).to_numpy(a) for a in kernels.layer_norm(*on(device, x)))
    assert abs(y - expected).max() <= 2 * abs(plain - expected).max()
    exact = wide.mean(axis=1)
    assert abs(found - exact).max() <= 2 * abs(mean - exact).max() + 6e-8 * abs(centre)


@pytest.mark.parametrize("cols", [64, 768, 4096])
@pytest.mark.parametrize("centre", [0.5, 1.0, 1.5, 2.0, 3.0, 3.9])
def test_a_mean_that_is_not_far_away_is_no_worse_than_in_the_definition(centre: float, cols: int) -> None:
    x = (normal(320, cols) + centre).astype(np.float32)
    expected = normalised(x.astype(np.float64), (1,), 1e-5)
    plain = kernels.layer_norm_definition(x, None, None, 1e-5)[0]
    assert abs(kernels.layer_norm(x)[0] - expected).max() <= 2 * abs(plain - expected).max()


def test_constant_rows_give_the_bias(device: Device) -> None:
    (x, b) = on(device, np.full((2, 5), 3.0, np.float32), normal(5).astype(np.float32))
    assert_close(kernels.layer_norm(x, None, b)[0], np.broadcast_to(backend_for(device).to_numpy(b), (2, 5)))


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BF16], ids=str)
def test_16_bit_floats_have_statistics_in_float32(dtype: Any, device: Device) -> None:
    x = (normal(3, 700) * 30 + 200).astype(dtype)  # squares and sums beyond float16's 65504
    w, dy = normal(700, seed=1).astype(dtype), normal(3, 700, seed=2).astype(dtype)
    xs, ws, dys = on(device, x, w, dy)
    wide, wide_w = x.astype(np.float64), w.astype(np.float64)
    unit = 2.0**-10 if dtype == np.float16 else 2.0**-7
    for (y, *stats), back, expected, centre in (
        (kernels.layer_norm(xs, ws), kernels.layer_norm_backward, normalised(wide, (1,), 1e-5), True),
        (kernels.rms_norm(xs, ws), kernels.rms_norm_backward, normalised(wide, (1,), 1.2e-7, centre=False), False),
    ):
        assert y.dtype == dtype
        assert all(s.dtype == np.float32 for s in stats)
        assert_close(y, expected * wide_w, rtol=unit, atol=unit / 8)
        dx, dweight, *_ = back(dys, xs, *stats, ws)
        assert dx.dtype == dweight.dtype == dtype
        assert_close(dx, backward64(dy, wide, wide_w, (1,), 1e-5, centre), rtol=unit, atol=unit / 100)
        assert_close(dweight, (dy.astype(np.float64) * expected).sum(0), rtol=unit, atol=unit)
    y, *stats = kernels.group_norm(xs, 1, ws)
    assert_close(y, normalised(wide, (1,), 1e-5) * wide_w, rtol=unit, atol=unit / 8)
    assert kernels.group_norm_backward(dys, xs, *stats, ws)[0].dtype == dtype


def test_a_nan_stays_in_its_sample(device: Device) -> None:
    x = normal(3, 4, 2).astype(np.float32)
    x[1, 2, 0] = np.nan
    for y in (
        kernels.layer_norm(*on(device, x.reshape(3, 8)))[0],
        kernels.rms_norm(*on(device, x.reshape(3, 8)))[0],
        kernels.group_norm(*on(device, x), 1)[0],
    ):
        bad = np.isnan(backend_for(device).to_numpy(y)).reshape(3, -1)
        assert bad[1].all()
        assert not bad[[0, 2]].any()


def test_any_strides_are_taken(device: Device) -> None:
    x = normal(6, 5, 4).astype(np.float32)
    for view in (x.transpose(2, 0, 1), x[::2, :, ::-1], np.broadcast_to(x[0], (3, 5, 4))):
        given = on(device, np.ascontiguousarray(view))[0]
        strided = on(device, x)[0].transpose(2, 0, 1) if view.shape == (4, 6, 5) else given
        assert_close(kernels.layer_norm(strided)[0], normalised(view, (2,), 1e-5), atol=1e-5)
        assert_close(kernels.group_norm(strided, 1)[0], normalised(view, (1, 2), 1e-5), atol=1e-5)


def test_results_depend_neither_on_the_number_of_threads_nor_on_the_call() -> None:
    x, dy, w = (normal(*s).astype(np.float32) for s in ((3000, 300), (3000, 300), (300,)))

    def run() -> tuple[np.ndarray, ...]:
        y, mean, rstd = kernels.layer_norm(x, w)
        return (y, *kernels.layer_norm_backward(dy, x, mean, rstd, w))

    before = get_num_threads()
    try:
        results = []
        for count in (2, 2, 3):
            lamella.set_num_threads(count)
            results.append(run())
    finally:
        lamella.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w, b: L.layer_norm(x, (3, 4), w, b, 1e-3),
        lambda x, w, b: L.rms_norm(x, (3, 4), w, 1e-3),
        lambda x, w, b: L.group_norm(x, 3, w[:, 0], b[:, 1], 1e-3),
    ],
)
def test_derivatives_agree_with_central_differences(call: Any, device: Device) -> None:
    gradcheck(call, *on(device, normal(2, 3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2)))


_IMAGES, _ROWS = np.ones((2, 6, 3, 3), np.float32), np.ones((2, 6), np.float32)
_WITH_EPS: dict[str, Any] = {
    "layer_norm": lambda eps: L.layer_norm(_ROWS, 6, eps=eps),
    "rms_norm": lambda eps: L.rms_norm(_ROWS, 6, eps=eps),
    "group_norm": lambda eps: L.group_norm(_IMAGES, 2, eps=eps),
    "instance_norm": lambda eps: L.instance_norm(_IMAGES, eps=eps),
    "batch_norm": lambda eps: L.batch_norm(_IMAGES, None, None, training=True, eps=eps),
    "dropout_add_layer_norm": lambda eps: L.dropout_add_layer_norm(_ROWS, _ROWS, 6, eps=eps),
    "dropout_add_rms_norm": lambda eps: L.dropout_add_rms_norm(_ROWS, _ROWS, 6, eps=eps),
    "LayerNorm": lambda eps: L.LayerNorm(6, eps=eps),
    "RMSNorm": lambda eps: L.RMSNorm(6, eps=eps),
    "GroupNorm": lambda eps: L.GroupNorm(2, 6, eps=eps),
    "InstanceNorm2d": lambda eps: L.InstanceNorm2d(6, eps=eps),
    "BatchNorm2d": lambda eps: L.BatchNorm2d(6, eps=eps),
}


@pytest.mark.parametrize("name", _WITH_EPS)
def test_eps_is_a_finite_number_that_is_not_negative(name: str) -> None:
    call = _WITH_EPS[name]
    with pytest.raises(ValueError, match=f"{name}: eps must be finite and not negative, got -0.001"):
        call(-1e-3)
    with pytest.raises(ValueError, match=f"{name}: eps must be finite and not negative, got inf"):
        call(float("inf"))
    with pytest.raises(ValueError, match=f"{name}: eps must be a number, got nan"):
        call(float("nan"))
    for wrong in ("a", True):
        with pytest.raises(TypeError, match=f"{name}: eps must be a number, got {wrong!r}"):
            call(wrong)
    call(np.float32(1e-3))
    call(1)


def test_rms_norm_without_eps_takes_the_machine_epsilon() -> None:
    """An input of all 1e-4 gives 0.278 with float32's epsilon and 0.0995 with 1e-6."""
    x = np.full((1, 8), 1e-4, np.float32)
    assert_close(L.RMSNorm(8)(x).to_numpy(), np.full((1, 8), 0.2782), atol=1e-4)
    assert_close(L.RMSNorm(8, eps=1e-6)(x).to_numpy(), np.full((1, 8), 0.0995), atol=1e-4)
    assert_close(L.rms_norm(x.astype(np.float64), 8).to_numpy(), np.ones((1, 8)), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.LayerNorm(4)(normal(3, 5)), ValueError, r"x must have shape \(\.\.\., 4\), got \(3, 5\)"),
        (
            lambda: L.LayerNorm(0),
            ValueError,
            "normalized_shape must be one or more positive integers, got 0",
        ),
        (lambda: L.LayerNorm(4)(normal(3, 4)), TypeError, "weight must have the dtype of x, float64, got float32"),
        (
            lambda: L.layer_norm(np.ones((3, 4)), 4, np.ones(3)),
            ValueError,
            r"weight must have shape \(4,\), got \(3,\)",
        ),
        (lambda: L.layer_norm(np.ones((3, 4), int), 4), TypeError, "x must be float16, .* got int64"),
        (lambda: L.RMSNorm((2, -1)), ValueError, "RMSNorm: normalized_shape must be one or more positive"),
        (lambda: L.RMSNorm(4)(normal(3, 5)), ValueError, r"rms_norm: x must have shape \(\.\.\., 4\)"),
        (lambda: L.GroupNorm(4, 6), ValueError, "multiple of num_groups, got num_channels=6, num_groups=4"),
        (
            lambda: L.GroupNorm(2, 6)(normal(3, 5, 2)),
            ValueError,
            r"shape \(N, 6, \.\.\.\), got \(3, 5, 2\)",
        ),
        (lambda: L.group_norm(normal(3, 5), 2), ValueError, "divide the channels, got num_groups=2, 5 channels"),
        (lambda: kernels.layer_norm(np.float32([])), ValueError, "last axis of at least one value"),
        (
            lambda: kernels.layer_norm_backward(np.ones((1, 2)), np.ones((2, 2)), np.ones(2), np.ones(2)),
            ValueError,
            r"dy must be float64 of shape \(2, 2\) as x is, got float64 of \(1, 2\)",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_an_infinity_shows_in_the_gradient_of_rms_norms_weight() -> None:
    norm = L.RMSNorm(2)
    norm(np.array([[1.0, np.inf]], np.float32)).sum().backward()
    np.testing.assert_array_equal(np.isnan(norm.weight.grad), [False, True])
