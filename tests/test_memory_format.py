"""Channels-last and contiguous images: the same shapes and values, another order in memory."""

from __future__ import annotations

import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.backend import Device, backend_for, empty_images, in_format, is_channels_last, is_view, pixels, planes
from lamella.kernels.image_axes import averaged, windows


def on(device: Device, array: np.ndarray):
    return backend_for(device).from_numpy(array, device)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_a_tensor_keeps_shape_and_values_and_goes_back(shape, device: Device):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    t = lamella.Tensor(on(device, x), requires_grad=True)
    last = t.channels_last()
    assert last.shape == shape
    assert is_channels_last(last.data)
    assert not is_channels_last(t.data)
    assert last.data.strides[1] == 4  # a channel's neighbour is the next element
    assert last.data.strides[-1] == 4 * shape[1]
    np.testing.assert_array_equal(backend_for(device).to_numpy(last.data), x)
    back = last.contiguous()
    assert back.data.flags.c_contiguous
    np.testing.assert_array_equal(backend_for(device).to_numpy(back.data), x)
    dy = on(device, x + 1)
    back.backward(dy)
    np.testing.assert_array_equal(backend_for(device).to_numpy(t.grad), x + 1)


def test_nothing_is_copied_that_has_the_format(device: Device):
    x = on(device, np.ones((2, 3, 4, 5), np.float32))
    last = in_format(x, True)
    assert in_format(x, False) is x
    assert in_format(last, True) is last
    assert not is_channels_last(in_format(last, False))
    assert lamella.Tensor(last).channels_last().data is last


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 3, 1, 1), (3, 2), (0, 2, 3, 4)])
def test_where_both_formats_are_one_memory_it_counts_as_contiguous(shape, device: Device):
    x = on(device, np.ones(shape, np.float32))
    assert not is_channels_last(x)
    if len(shape) > 2:
        assert in_format(x, True) is x


def test_gaps_and_other_orders_are_not_channels_last(device: Device):
    x = on(device, np.ones((4, 6, 4, 6), np.float32))
    last = in_format(x, True)
    assert not is_channels_last(last[::2])
    assert not is_channels_last(last[:, :3])
    assert not is_channels_last(x.transpose(0, 3, 1, 2)[:, ::2])
    assert not is_channels_last(x.transpose(0, 1, 3, 2))
    assert is_channels_last(last[1:3])


def test_pixels_and_planes_are_inverse(device: Device):
    x = on(device, np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5))
    assert pixels(x).shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(*(backend_for(device).to_numpy(a) for a in (planes(pixels(x)), x)))


def test_a_fresh_channels_last_array_is_nobodys_view():
    backend, device = backend_for("cpu"), lamella.device("cpu")
    for shape in ((2, 3, 4, 5), (8, 16, 64, 64)):  # small, and from the pool
        x = empty_images(backend, shape, np.float32, device, channels_last=True)
        assert is_channels_last(x)
        assert not is_view(x)
        assert is_view(x[:1])
        other = x.transpose(0, 2, 3, 1)
        assert is_view(x)  # somebody else sees the same memory
        del other


def test_too_few_axes_are_refused():
    with pytest.raises(ValueError, match=r"channels_last: x must have shape \(N, C, ...\) with 3 axes"):
        lamella.tensor([[1.0, 2.0]]).channels_last()
    with pytest.raises(TypeError, match="contiguous: x must be a tensor or an array"):
        lamella.autograd.shape.contiguous([1.0])


def test_gradients_of_images_are_nobodys_view():
    """Else they would be copied at every leaf, and their memory not be used again."""
    x = np.random.default_rng(0).standard_normal((8, 16, 64, 64)).astype(np.float32)
    for last in (False, True):
        images = in_format(x, last)
        axes = windows("test", x.shape[2:], [2, 2], [2, 2], [0, 0], [1, 1], False)
        y, positions = kernels.max_pool(images, axes)
        assert not is_view(kernels.max_pool_backward(y, positions, x.shape, axes))
        halves = tuple(averaged(axis, True) for axis in axes)
        assert not is_view(kernels.resample_backward(kernels.resample(images, halves), x.shape, halves))
        y, mean, var = kernels.batch_norm(images, relu=True)
        assert not is_view(y)
        assert not is_view(kernels.batch_norm_backward(images, images, mean, var, y=y)[0])
