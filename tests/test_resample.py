"""Average pooling, resizing and padding: what each axis says, on every device; PyTorch's results are elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for, in_format, is_channels_last
from lamella.kernels.image_axes import (
    Axis,
    adaptive,
    averaged,
    divided,
    extended,
    out_shape,
    resized,
    taps,
    unchanged,
    windows,
)


def on(device: Device, array: np.ndarray, last: bool = False) -> Any:
    x = backend_for(device).from_numpy(array, device)
    return in_format(x, True) if last else x


def host(array: Any) -> np.ndarray:
    return lamella.backend.backend_of(array).to_numpy(array).astype(np.float64)


def matrix(axis: Axis) -> np.ndarray:
    """Outputs by inputs, put together number by number."""
    table = taps(axis)
    result = np.zeros((axis.out, axis.length))
    for o in range(axis.out):
        for k, i in enumerate(table.index[o]):
            if i >= 0:
                result[o, i] += 1.0 if table.weight is None else table.weight[o, k]
        if table.divisor is not None:
            result[o] /= table.divisor[o]
    return result


def product(x: np.ndarray, axes: Any, transposed: bool = False) -> np.ndarray:
    for number, axis in enumerate(axes, start=2):
        m = matrix(axis)
        x = np.moveaxis(np.tensordot(x, m.T if transposed else m, (number, 1)), -1, number)
    return x


def means(shape, kernel, stride, padding, ceil=False, counted=True):
    found = windows("avg_pool", shape[2:], kernel, stride, padding, [1] * len(kernel), ceil)
    return tuple(averaged(axis, counted) for axis in found)


CASES = {
    "mean1": ((2, 3, 9), means((2, 3, 9), [3], [2], [1])),
    "halves": ((2, 4, 6, 8), means((2, 4, 6, 8), [2, 2], [2, 2], [0, 0])),
    "uncounted": ((1, 8, 6, 7), means((1, 8, 6, 7), [3, 2], [2, 1], [1, 1], True, False)),
    "divided": ((1, 3, 5, 4), (unchanged(5), divided(windows("f", [4], [2], [1], [0], [1], False)[0], 3.0))),
    "mean3": ((1, 2, 3, 4, 5), means((1, 2, 3, 4, 5), [2, 2, 3], [1, 2, 1], [0, 1, 1])),
    "global": ((2, 4, 3, 40), tuple(averaged(axis, False) for axis in adaptive((3, 40), (1, 1)))),
    "much": ((1, 2, 50, 60), tuple(averaged(axis, False) for axis in adaptive((50, 60), (1, 1)))),
    "rows": ((2, 3, 4, 9), (unchanged(4), averaged(adaptive((9,), (1,))[0], False))),
    "adaptive": ((2, 3, 7, 5), tuple(averaged(axis, False) for axis in adaptive((7, 5), (3, 8)))),
    "nearest": ((2, 4, 3, 4), (resized(3, 6, "nearest"), resized(4, 7, "nearest"))),
    "linear": ((2, 4, 3, 5), (resized(3, 7, "linear"), resized(5, 4, "linear", True))),
    "cubic": ((1, 3, 4, 5), (resized(4, 9, "cubic"), unchanged(5))),
    "mirrored": ((2, 3, 4, 3), (extended(4, 3, 1, "reflect"), extended(3, 2, 2, "reflect"))),
    "continued": ((2, 3, 4, 5), (extended(4, 2, -1, "replicate"), extended(5, 1, 5, "circular"))),
    "long": ((2, 2, 600), (resized(600, 31, "linear"),)),
    "far": ((1, 4, 20, 3), (averaged(windows("f", [20], [15], [2], [7], [1], False)[0], True), unchanged(3))),
    "nothing": ((2, 3, 4), (unchanged(4),)),
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", CASES)
def test_an_image_is_multiplied_by_the_matrix_of_each_axis(case, last, device: Device):
    shape, axes = CASES[case]
    rng = np.random.default_rng(len(case))
    for name, tolerance in (("float32", 2e-6), ("float64", 1e-14), ("float16", 1e-3), ("bfloat16", 8e-3)):
        dtype = lamella.backend.as_dtype(name)
        x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal(out_shape(shape, axes)).astype(dtype)
        y = kernels.resample(on(device, x, last), axes)
        dx = kernels.resample_backward(on(device, dy, last), shape, axes)
        assert y.dtype == dx.dtype == dtype
        for found, given, back in ((y, x, False), (dx, dy, True)):
            expected = product(given.astype(np.float64), axes, back)
            np.testing.assert_allclose(host(found), expected, rtol=0, atol=tolerance * max(1, abs(expected).max()))
        if last and min(y.shape) > 1:
            assert is_channels_last(y)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_value_that_is_not_finite_stays_where_its_windows_are(value, device: Device):
    for case in ("halves", "linear", "adaptive", "cubic", "mirrored"):
        shape, axes = CASES[case]
        x = np.ones(shape, np.float32)
        x[0, 1, 1, 2] = value
        reached = ~np.isfinite(x)
        for number, axis in enumerate(axes, start=2):  # an input is one of an output's, also with weight 0
            table = taps(axis).index
            seen = [(np.take(reached, row[row >= 0], axis=number)).any(axis=number) for row in table]
            reached = np.stack(seen, axis=number)
        y = host(kernels.resample(on(device, x), axes))
        np.testing.assert_array_equal(np.isfinite(y), ~reached, err_msg=case)


def test_the_mean_of_equal_values_is_that_value(device: Device):
    x = on(device, np.full((1, 2, 9, 9), 0.3, np.float32))
    for kernel in (2, 3, 7):
        y = L.avg_pool2d(x, kernel, 1, kernel // 2, count_include_pad=False)
        np.testing.assert_allclose(host(y.data), 0.3, rtol=1e-6)
    np.testing.assert_array_equal(host(L.avg_pool2d(on(device, np.ones((1, 1, 6, 6), np.float32)), 3).data), 1)


def test_gradients_agree_with_central_differences(device: Device):
    x = on(device, np.random.default_rng(0).standard_normal((1, 2, 4, 5)))
    for function in (
        lambda x: L.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda x: L.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: L.interpolate(x, size=(7, 3), mode="bicubic"),
        lambda x: L.interpolate(x, scale_factor=1.7, mode="bilinear", align_corners=True),
        lambda x: L.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: L.pad(x, (1, 2, -1, 3), value=0.5),
        lambda x: L.pad(x, (1, 2, 2, 3), mode="reflect"),
        lambda x: L.pad(x, (1, 2, 2, 3), mode="circular"),
        lambda x: L.pixel_unshuffle(L.pixel_shuffle(L.pad(x, (0, 1, 0, 0))[:, :1].reshape(1, 4, 2, 3), 2), 2),
        lambda x: L.channel_shuffle(x, 2),
    ):
        assert gradcheck(function, x)
    positive = on(device, np.random.default_rng(1).random((1, 2, 4, 5)) + 0.5)
    assert gradcheck(lambda x: L.lp_pool2d(x, 3, 2, ceil_mode=True), positive)


def test_the_norm_of_zeros_has_no_gradient(device: Device):
    x = lamella.Tensor(on(device, np.zeros((1, 1, 4), np.float32)), requires_grad=True)
    L.lp_pool1d(x, 2, 2).sum().backward()
    np.testing.assert_array_equal(host(x.grad), 0)


def test_nothing_in_gives_nothing_out(device: Device):
    for function in (
        lambda x: L.avg_pool2d(x, 2),
        lambda x: L.adaptive_avg_pool2d(x, 1),
        lambda x: L.interpolate(x, scale_factor=2),
        lambda x: L.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: L.pad(x, (1, 1)),
        lambda x: L.pixel_shuffle(x, 2),
    ):
        x = lamella.Tensor(on(device, np.ones((0, 4, 4, 4), np.float32)), requires_grad=True)
        y = function(x)
        assert y.shape[0] == 0
        y.sum().backward()
        assert x.grad.shape == x.shape


@pytest.mark.parametrize("last", [False, True])
def test_an_image_smaller_than_a_window_has_one_with_ceil_mode(last: bool, device: Device):
    x = np.arange(1.0, 9.0, dtype=np.float32).reshape(1, 2, 2, 2)
    images = on(device, x, last)
    np.testing.assert_array_equal(host(L.avg_pool2d(images, 3, 2, ceil_mode=True).data).ravel(), [2.5, 6.5])
    np.testing.assert_array_equal(host(L.max_pool2d(images, (3, 2), 2, ceil_mode=True).data).ravel(), [4, 8])
    summed = L.lp_pool2d(images, 1, 3, ceil_mode=True)  # as if the window were full: 9 values, as in PyTorch
    np.testing.assert_allclose(host(summed.data).ravel(), [2.5 * 9, 6.5 * 9], rtol=1e-6)


def test_wrong_arguments_are_named():
    x = np.ones((2, 4, 6, 6), np.float32)
    for call, message in (
        (lambda: L.avg_pool2d(x, 7), "avg_pool2d: a window of 7 does not fit an axis of length 6"),
        (lambda: L.avg_pool2d(x, 2, divisor_override=0), "divisor_override must not be 0"),
        (lambda: L.AvgPool3d(2)(x[0, 0]), r"AvgPool3d: x must have shape \(N, C, D, H, W\) or \(C, D, H, W\), got"),
        (lambda: L.lp_pool2d(x, -1.0, 2), "lp_pool2d: norm_type must be positive and finite, got -1.0"),
        (lambda: L.interpolate(x), "give exactly one of size and scale_factor"),
        (lambda: L.interpolate(x, size=3, mode="linear"), "mode must be one of 'nearest', .* for 2 spatial axes"),
        (lambda: L.interpolate(x, size=3, align_corners=True), "align_corners is for the linear modes and bicubic"),
        (lambda: L.interpolate(x, scale_factor=0.1), "scale_factor must leave a value, got 0.1"),
        (lambda: L.interpolate(x, scale_factor=float("inf")), "interpolate: scale_factor must be finite, got inf"),
        (lambda: L.interpolate(x, size=3, mode=["area"]), r"mode must be one of .*, got \['area'\]"),
        (lambda: L.avg_pool2d(x, 8, 2, ceil_mode=True), "a window of 8 does not fit an axis of length 6"),
        (lambda: L.pad(x.astype(np.int64), (1, 1), value=0.5), "value must be one that int64 holds, got 0.5"),
        (lambda: L.pad(x.astype(np.uint8), (1, 1), value=-1), "value must be one that uint8 holds, got -1"),
        (lambda: L.interpolate(x, scale_factor=(1, 2, 3)), "scale_factor must be a number or 2 of them"),
        (lambda: L.interpolate(x, size=3, recompute_scale_factor=True), "recompute_scale_factor needs scale_factor"),
        (lambda: L.interpolate(x[0, 0], size=3), "x must have shape"),
        (lambda: L.interpolate(x[:, :, :0], size=3), "must have values along its spatial axes"),
        (lambda: L.pad(x, (6, 0, 0, 0), "reflect"), r"\(6, 0\) does not fit an axis of length 6 in mode 'reflect'"),
        (lambda: L.pad(x, (7, 0, 0, 0), "circular"), r"padding \(7, 0\) does not fit an axis of length 6"),
        (lambda: L.pad(x, (-4, -3)), r"padding \(-4, -3\) does not fit an axis of length 6 in mode 'constant'"),
        (lambda: L.pad(x, (1, 1), "reflect"), r"mode 'reflect' wants a pair for each spatial axis"),
        (lambda: L.pad(x, 1), "padding must be 2 to 8 integers, two for each axis, got 1"),
        (lambda: L.pad(x, (1, 2, 3)), "padding must be 2 to 8 integers"),
        (lambda: L.pad(x, (1, 1), "mirror"), "mode must be one of 'constant', 'reflect', 'replicate', 'circular'"),
        (lambda: L.ZeroPad1d(1)(x), r"ZeroPad1d: x must have shape \(N, C, T\) or \(C, T\), got \(2, 4, 6, 6\)"),
        (lambda: L.pixel_shuffle(x, 3), r"channels must be a multiple of 3² = 9, got shape \(2, 4, 6, 6\)"),
        (lambda: L.pixel_unshuffle(x, 4), "height and width must be multiples of 4"),
        (lambda: L.pixel_shuffle(x[0, 0], 1), r"pixel_shuffle: x must have shape \(..., C, H, W\), got \(6, 6\)"),
        (lambda: L.channel_shuffle(x, 3), "with C a multiple of groups=3"),
        (lambda: kernels.resample_backward(x, x.shape, CASES["halves"][1]), "must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="resample: x must be float16, bfloat16, float32 or float64, got int64"):
        L.avg_pool2d(x.astype(np.int64), 2)


def test_the_kernel_is_launched_and_explained(device: Device):
    shape, axes = CASES["global"]
    x = on(device, np.ones(shape, np.float32))
    said = kernels.explain("resample", x, axes)
    back = kernels.explain("resample_backward", x[:, :, :1, :1], shape, axes)
    if device.kind == "cpu":
        assert said == back == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert said.startswith("resample [LANES=32 DTYPE=float VECTOR=1]")
    assert "a warp shares the 40 inputs of a result along the last axis" in said
    assert back.startswith("resample [LANES=1 DTYPE=float VECTOR=1]")
    assert "resample [LANES=1 DTYPE=float VECTOR=4]" in kernels.explain("resample", in_format(x, True), axes)
    assert "the 3 channels are no multiple of 4" in kernels.explain("resample", in_format(x[:, :3], True), axes)
    assert "copied first" in kernels.explain("resample", x[:, ::2], axes)
    assert "there is no kernel for float64" in kernels.explain("resample", x.astype("float64"), axes)
    assert "nothing to compute" in kernels.explain("resample", x[:0], axes)
    if device.kind == "simulator":
        from lamella.testing.array import activity

        activity.reset()
        kernels.resample_backward(kernels.resample(x, axes), shape, axes)
        assert activity.launches == {"resample": 2}
        assert activity.synchronizations == 0
