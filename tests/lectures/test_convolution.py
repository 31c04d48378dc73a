"""The claims of ``examples/lectures/convolution.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(0), epochs=10)


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_toeplitz_product_is_the_layer_and_its_transpose_the_backward_pass(
    lecture: ModuleType, length: int, padding: int
) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(9), rng.standard_normal(length)
    matrix = lecture.toeplitz(w, 9, padding)
    assert matrix.shape == (9 + 2 * padding - length + 1, 9)
    tensor = lamella.tensor(x[None], requires_grad=True)
    y = L.conv1d(tensor, w[None, None], padding=padding)
    np.testing.assert_allclose(y.to_numpy()[0], matrix @ x, atol=1e-14)
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    np.testing.assert_allclose(tensor.grad[0], matrix.T @ dy[0], atol=1e-14)


def test_the_layer_correlates_and_convolution_turns_the_kernel(lecture: ModuleType, found: dict[str, Any]) -> None:
    assert found["turned"] <= 1e-6
    assert found["Toeplitz"] <= 1e-6
    impulse, w = np.zeros(9), np.array([1.0, 2.0, 3.0])
    impulse[4] = 1
    answer = L.conv1d(impulse[None], w[None, None], padding=1).to_numpy()[0]
    np.testing.assert_array_equal(answer[3:6], w[::-1])  # the correlation: the kernel backwards
    turned = L.conv1d(impulse[None], w[None, None, ::-1], padding=1).to_numpy()[0]
    np.testing.assert_array_equal(turned[3:6], w)
    np.testing.assert_array_equal(np.convolve(w, [5.0, 7.0]), np.convolve([5.0, 7.0], w))
    assert not np.array_equal(np.correlate(w, [5.0, 7.0], "full"), np.correlate([5.0, 7.0], w, "full"))


def test_zero_padding_keeps_the_size_and_darkens_the_border(found: dict[str, Any]) -> None:
    border = found["border"]
    assert border.shape == (8, 8)
    np.testing.assert_allclose(border[1:-1, 1:-1], 1, atol=1e-6)
    np.testing.assert_allclose(border[0], [4 / 9, *[6 / 9] * 6, 4 / 9], atol=1e-6)


def test_a_kernel_multiplies_the_variance_of_noise_by_its_sum_of_squares(
    lecture: ModuleType, found: dict[str, Any]
) -> None:
    for name, kernel in (("box", lecture.BOX), ("Gauss", lecture.GAUSS)):
        assert kernel.sum() == pytest.approx(1)
        assert found["variance"][name] == pytest.approx((kernel**2).sum(), rel=0.03)
    assert (lecture.BOX**2).sum() == pytest.approx(1 / 9)


def test_moving_the_image_moves_the_result_and_pooling_changes_less(lecture: ModuleType, found: dict[str, Any]) -> None:
    image = np.zeros((12, 12), "float32")
    image[3:7, 3:7] = np.random.default_rng(0).random((4, 4))
    y = lecture.correlate(image, lecture.SOBEL, 1)
    moved = lecture.correlate(np.roll(image, (2, 1), (0, 1)), lecture.SOBEL, 1)
    np.testing.assert_array_equal(moved, np.roll(y, (2, 1), (0, 1)))
    assert 0.1 < found["change of pooled"] < 0.75 * found["change of edges"]


def test_kernels_are_learned(lecture: ModuleType, found: dict[str, Any]) -> None:
    np.testing.assert_allclose(found["Sobel"], lecture.SOBEL, atol=1e-3)
    assert found["accuracy"] > 0.95
