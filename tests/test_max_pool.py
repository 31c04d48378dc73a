"""Max pooling: which value wins, its place, and its gradient, on every device."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for, in_format, is_channels_last
from lamella.kernels.image_axes import adaptive, out_shape, taps, unchanged, window_size, windows


def on(device: Device, array: np.ndarray, last: bool = False) -> Any:
    x = backend_for(device).from_numpy(array, device)
    return in_format(x, True) if last else x


def host(array: Any) -> np.ndarray:
    return lamella.backend.backend_of(array).to_numpy(array)


def oracle(x: np.ndarray, axes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, positions in the window and indices in the plane, one window and one input after another."""
    shape = out_shape(x.shape, axes)
    y, position = np.full(shape, -np.inf), np.full(shape, window_size(axes))
    index = np.zeros(shape, np.int64)
    tables = [taps(axis).index for axis in axes]
    for out in itertools.product(*(range(axis.out) for axis in axes)):
        for n, c in np.ndindex(shape[:2]):
            best = None
            for number, ks in enumerate(itertools.product(*(range(table.shape[1]) for table in tables))):
                place = tuple(int(table[o, k]) for table, o, k in zip(tables, out, ks, strict=True))
                value = x[(n, c, *place)] if min(place) >= 0 else None
                if value is not None and (best is None or value > best or value != value):
                    best = value
                    position[(n, c, *out)] = number
                    index[(n, c, *out)] = np.ravel_multi_index(place, x.shape[2:])
            y[(n, c, *out)] = -np.inf if best is None else best
    return y, position, index


def regular(shape, kernel, stride, padding, dilation, ceil=False):
    return windows("max_pool", shape[2:], kernel, stride, padding, dilation, ceil)


CASES = {
    "1d": ((2, 3, 7), regular((2, 3, 7), [3], [2], [1], [1])),
    "halves": ((2, 4, 6, 8), regular((2, 4, 6, 8), [2, 2], [2, 2], [0, 0], [1, 1])),
    "dilated": ((1, 3, 7, 9), regular((1, 3, 7, 9), [3, 2], [2, 3], [1, 0], [1, 2], True)),
    "overlapping": ((2, 4, 6, 5), regular((2, 4, 6, 5), [3, 3], [1, 2], [1, 1], [1, 1], True)),
    "apart": ((2, 4, 7, 8), regular((2, 4, 7, 8), [2, 2], [3, 3], [0, 0], [1, 1])),
    "3d": ((1, 2, 4, 3, 4), regular((1, 2, 4, 3, 4), [2, 3, 2], [2, 1, 2], [0, 1, 1], [1, 1, 1], True)),
    "large": ((1, 2, 9, 40), regular((1, 2, 9, 40), [9, 31], [1, 5], [0, 3], [1, 1])),
    "adaptive": ((2, 3, 7, 5), adaptive((7, 5), (3, 2))),
    "adaptive_up": ((2, 3, 3, 2), adaptive((3, 2), (5, 3))),
    "one_axis": ((2, 3, 5, 4), (unchanged(5), regular((2, 3, 4), [2], [2], [0], [1])[0])),
    "beyond": ((1, 2, 2), regular((1, 2, 2), [2], [1], [1], [3])),
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", CASES)
def test_values_places_and_gradients_agree_with_a_search(case, last, device: Device):
    shape, axes = CASES[case]
    rng = np.random.default_rng(len(case))
    dtypes = ("float32", "float64", "float16", "bfloat16")
    for number, kind in enumerate(("ties", "nan", "-inf", "normal")):
        x = rng.integers(0, 4, shape).astype(np.float32)
        if kind == "nan":
            x.reshape(-1)[rng.integers(0, x.size, 3)] = np.nan
        elif kind == "-inf":
            x[rng.random(shape) < 0.8] = -np.inf
        elif kind == "normal":
            x = rng.standard_normal(shape).astype(np.float16).astype(np.float32)
        dtype = lamella.backend.as_dtype("float32" if kind == "normal" else dtypes[number])
        there = on(device, x, last).astype(dtype)
        there = in_format(there, last)
        y, positions = kernels.max_pool(there, axes)
        expected, place, index = oracle(x, axes)
        np.testing.assert_array_equal(host(y).astype(np.float64), expected)
        np.testing.assert_array_equal(host(positions), place)
        found = host(kernels.max_pool_indices(positions, axes))
        seen = place < window_size(axes)
        np.testing.assert_array_equal(found[seen], index[seen])
        assert is_channels_last(y) == is_channels_last(positions)
        if last and min(expected.shape) > 1:
            assert is_channels_last(y)
        alone, nothing = kernels.max_pool(there, axes, positions=False)
        assert nothing is None
        np.testing.assert_array_equal(host(alone), host(y))

        dy = rng.integers(-8, 9, expected.shape).astype(np.float32)
        dx = kernels.max_pool_backward(on(device, dy, last).astype(dtype), positions, shape, axes)
        wanted = np.zeros(shape)
        for n, c in np.ndindex(shape[:2]):
            np.add.at(wanted[n, c].reshape(-1), index[n, c][seen[n, c]], dy[n, c][seen[n, c]])
        np.testing.assert_array_equal(host(dx).astype(np.float64), wanted)


def test_gradients_agree_with_central_differences(device: Device):
    x = np.random.default_rng(0).permutation(60).astype(np.float64).reshape(1, 2, 5, 6)
    assert gradcheck(lambda x: L.max_pool2d(x, 3, 2, 1), on(device, x))
    assert gradcheck(lambda x: L.max_pool2d(x, 2, ceil_mode=True, return_indices=True)[0], on(device, x))
    assert gradcheck(lambda x: L.adaptive_max_pool2d(x, (2, 4)), on(device, x))


def test_the_first_of_equal_values_has_the_gradient(device: Device):
    x = lamella.Tensor(on(device, np.ones((1, 1, 4, 4), np.float32)), requires_grad=True)
    y, indices = L.max_pool2d(x, 2, return_indices=True)
    y.sum().backward()
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(host(x.grad)[0, 0], expected)
    np.testing.assert_array_equal(host(indices.data)[0, 0], [[0, 2], [8, 10]])


def test_unpooling_puts_values_back(device: Device):
    x = np.random.default_rng(1).permutation(32).astype(np.float32).reshape(1, 2, 4, 4)
    y, indices = L.max_pool2d(on(device, x), 2, return_indices=True)
    back = host(L.max_unpool2d(y, indices, 2).data)
    assert set(back[back != 0]) == set(host(y.data)[host(y.data) != 0])
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
    assert L.MaxUnpool2d(2)(y, indices, output_size=(1, 2, 5, 5)).shape == (1, 2, 5, 5)
    with pytest.raises(ValueError, match=r"indices must be in 0 … 15 for an output of \(4, 4\), got"):
        L.max_unpool2d(y, indices.data + 99, 2)
    with pytest.raises(ValueError, match=r"output_size must be less than a stride from \(4, 4\), got 9"):
        L.max_unpool2d(y, indices, 2, output_size=9)
    with pytest.raises(ValueError, match="indices must be integers of the shape of x"):
        L.max_unpool2d(y, y, 2)


def test_images_without_a_batch_and_empty_batches(device: Device):
    x = np.random.default_rng(2).standard_normal((3, 6, 5)).astype(np.float32)
    alone, indices = L.MaxPool2d(2, return_indices=True)(on(device, x))
    many, _ = L.MaxPool2d(2, return_indices=True)(on(device, x[None]))
    assert alone.shape == indices.shape == (3, 3, 2)
    np.testing.assert_array_equal(host(alone.data), host(many.data)[0])
    empty = lamella.Tensor(on(device, x[None][:0]), requires_grad=True)
    y = L.max_pool2d(empty, 2)
    assert y.shape == (0, 3, 3, 2)
    y.sum().backward()
    assert empty.grad.shape == (0, 3, 6, 5)


def test_wrong_arguments_are_named():
    x = np.ones((2, 3, 6, 6), np.float32)
    with pytest.raises(ValueError, match=r"max_pool2d: x must have shape \(N, C, H, W\) or \(C, H, W\), got \(2, 3\)"):
        L.max_pool2d(x[:, :, 0, 0], 2)
    with pytest.raises(ValueError, match="max_pool2d: padding must be at most half of a window, 2, got 3"):
        L.max_pool2d(x, (4, 5), padding=(3, 2))
    with pytest.raises(ValueError, match="MaxPool2d: a window of 9 does not fit an axis of length 6 with padding 0"):
        L.MaxPool2d(9)(x)
    with pytest.raises(ValueError, match="max_pool2d: kernel_size must be an integer or 2 of them"):
        L.max_pool2d(x, (1, 2, 3))
    with pytest.raises(ValueError, match="max_pool2d: stride must be at least 1, got 0"):
        L.max_pool2d(x, 2, 0)
    with pytest.raises(TypeError, match="max_pool: x must be float16, bfloat16, float32 or float64, got int64"):
        L.max_pool2d(x.astype(np.int64), 2)
    with pytest.raises(ValueError, match="adaptive_max_pool2d: output_size must be an integer or 2 of them"):
        L.adaptive_max_pool2d(x, (1, 2, 3))
    with pytest.raises(ValueError, match="adaptive_max_pool1d: x must have values along its spatial axes"):
        L.adaptive_max_pool1d(x[:, :, 0, :0], 2)
    axes = regular(x.shape, [2, 2], [2, 2], [0, 0], [1, 1])
    with pytest.raises(ValueError, match=r"dy must have the shape of y, \(2, 3, 3, 3\), got \(2, 3, 6, 6\)"):
        kernels.max_pool_backward(x, x.astype(np.uint8), x.shape, axes)
    with pytest.raises(ValueError, match=r"spatial axes of x must be \(6, 6\) long as axes says, got \(2, 3, 5, 6\)"):
        kernels.max_pool(x[:, :, 1:], axes)
    with pytest.raises(ValueError, match="with 2 spatial axes"):
        kernels.max_pool(x[0], axes)


def test_the_kernels_are_launched_and_explained(device: Device):
    x = on(device, np.ones((2, 4, 4, 4), np.float32))
    axes = regular((2, 4, 4, 4), [2, 2], [2, 2], [0, 0], [1, 1])
    y, positions = kernels.max_pool(x, axes)
    said, back = kernels.explain("max_pool", x, axes), kernels.explain("max_pool_backward", y, positions, x.shape, axes)
    if device.kind == "cpu":
        assert said == back == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert said.startswith("max_pool_forward [FORWARD POSITION=uchar DTYPE=float VECTOR=1]")
    assert "neighbours in a plane are in different windows" in said
    assert back.startswith("max_pool_backward [BACKWARD POSITION=uchar DTYPE=float VECTOR=1]")
    last = in_format(x, True)
    assert "VECTOR=4" in kernels.explain("max_pool", last, axes)
    assert "the 3 channels are no multiple of 4" in kernels.explain("max_pool", in_format(x[:, :3], True), axes)
    assert "x has gaps and is copied first" in kernels.explain("max_pool", x[:, ::2], axes)
    assert "dy has another format" in kernels.explain("max_pool_backward", in_format(y, True), positions, x.shape, axes)
    assert "there is no kernel for float64" in kernels.explain("max_pool", x.astype("float64"), axes)
    assert "nothing to compute" in kernels.explain("max_pool", x[:0], axes)
    if device.kind == "simulator":
        from lamella.testing.array import activity

        activity.reset()
        _, positions = kernels.max_pool(last, axes)
        kernels.max_pool_backward(y, positions, x.shape, axes)
        assert activity.launches == {"max_pool_forward": 1, "max_pool_backward": 1}
        assert activity.synchronizations == 0


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_large_arrays_are_cut_into_chunks(threads):
    before = lamella.backend.get_num_threads()
    lamella.set_num_threads(threads)
    try:
        rng = np.random.default_rng(3)
        x = rng.integers(0, 9, (40, 7, 41, 43)).astype(np.float32)
        axes = regular(x.shape, [3, 2], [2, 2], [1, 1], [1, 1])
        results = []
        for last in (False, True):
            y, positions = kernels.max_pool(on(lamella.device("cpu"), x, last), axes)
            dx = kernels.max_pool_backward(y, positions, x.shape, axes)
            results.append((y, positions, dx))
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)
        expected, place, _ = oracle(x[-1:], axes)
        np.testing.assert_array_equal(results[0][0][-1:], expected)
        np.testing.assert_array_equal(results[0][1][-1:], place)
        np.testing.assert_allclose(results[0][2].sum(), results[0][0].sum(), rtol=1e-6)
    finally:
        lamella.set_num_threads(before)

