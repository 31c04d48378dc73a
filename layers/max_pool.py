"""Max pooling in one, two and three dimensions: the largest value of each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import kernels
from ..autograd import Tensor, is_recording, op
from ..backend import Array
from ..kernels.image_axes import Axis
from .pooling import Pooling, adaptive_axes, batched, pooling_axes


@op
def _max_pool(x: Array, axes: Sequence[Axis], wanted: bool) -> Any:
    y, positions = kernels.max_pool(x, axes, positions=wanted)
    shape = x.shape
    return y, lambda dy: (kernels.max_pool_backward(dy, positions, shape, axes),)


@op
def _max_pool_with_indices(x: Array, axes: Sequence[Axis]) -> Any:
    y, positions = kernels.max_pool(x, axes)
    shape = x.shape
    indices = kernels.max_pool_indices(positions, axes)
    return (y, indices), lambda dy, _: (kernels.max_pool_backward(dy, positions, shape, axes),)


def _pooled(x: Any, count: int, axes: tuple[Axis, ...], return_indices: bool) -> Any:
    if return_indices:
        return batched(x, count, lambda images: _max_pool_with_indices(images, axes))
    wanted = isinstance(x, Tensor) and x.requires_grad and is_recording()
    return batched(x, count, lambda images: _max_pool(images, axes, wanted))


def max_pool1d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """``y[n, c, i] = max over k of x[n, c, stride i + dilation k - padding]``.

    Of equal values the first counts: it gets the whole gradient. NaN is larger than any number. Padding is -inf.

    Args:
        x: shape ``(N, C, T)`` or ``(C, T)``, floating.
        kernel_size: values in a window.
        stride: from one window to the next; ``kernel_size`` by default.
        padding: values added at both ends, at most half of a window.
        dilation: from one value of a window to the next.
        ceil_mode: whether a last window may reach beyond the end; it has to begin before it.
        return_indices: whether to give ``(y, indices)``: int64, where in its row each maximum stands.
    Returns:
        shape ``(N, C, T')`` with ``T' = (T + 2 padding - dilation (kernel_size - 1) - 1) / stride + 1``, rounded down,
        or up with ``ceil_mode``.
    """
    return _max("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value of each window of images ``(N, C, H, W)`` or ``(C, H, W)``.

    Numbers for both axes alike, or two; otherwise as :func:`max_pool1d`. Indices count row-major in ``H x W``. Both
    memory formats are taken and kept.
    """
    return _max("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value of each window of volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)``; see :func:`max_pool1d`."""
    return _max("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _max(
    function: str, count: int, x: Any, size: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, indices: bool
) -> Any:
    return _pooled(x, count, pooling_axes(function, x, count, size, stride, padding, dilation, ceil), indices)


def adaptive_max_pool1d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest value of each of ``output_size`` windows that cover ``(N, C, T)`` or ``(C, T)``.

    Window i goes from ``floor(i T / output_size)`` to before ``ceil((i + 1) T / output_size)``.

    Args:
        x: floating.
        output_size: how many windows; None for one for each value.
        return_indices: as in :func:`max_pool1d`.
    """
    return _pooled(x, 1, adaptive_axes("adaptive_max_pool1d", x, 1, output_size), return_indices)


def adaptive_max_pool2d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """:func:`adaptive_max_pool1d` of images ``(N, C, H, W)`` or ``(C, H, W)``; one size for both axes, or two."""
    return _pooled(x, 2, adaptive_axes("adaptive_max_pool2d", x, 2, output_size), return_indices)


def adaptive_max_pool3d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """:func:`adaptive_max_pool1d` of volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""
    return _pooled(x, 3, adaptive_axes("adaptive_max_pool3d", x, 3, output_size), return_indices)


class _MaxPool(Pooling):
    _axes = 0
    _shown = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: Any) -> Any:
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)
        return _max(type(self).__name__, self._axes, x, *options)


class MaxPool1d(_MaxPool):
    """The largest value of each window of ``(N, C, T)``.

    Args:
        kernel_size, stride, padding, dilation, ceil_mode, return_indices: as in :func:`max_pool1d`.
    """

    _axes = 1


class MaxPool2d(_MaxPool):
    """The largest value of each window of ``(N, C, H, W)``; arguments as in :func:`max_pool2d`."""

    _axes = 2


class MaxPool3d(_MaxPool):
    """The largest value of each window of ``(N, C, D, H, W)``; arguments as in :func:`max_pool3d`."""

    _axes = 3


class _AdaptiveMaxPool(Pooling):
    _axes = 0
    _shown = ("output_size", "return_indices")

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, x: Any) -> Any:
        axes = adaptive_axes(type(self).__name__, x, self._axes, self.output_size)
        return _pooled(x, self._axes, axes, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """``output_size`` windows that cover ``(N, C, T)``; see :func:`adaptive_max_pool1d`."""

    _axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """``output_size`` windows that cover ``(N, C, H, W)``; see :func:`adaptive_max_pool1d`."""

    _axes = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """``output_size`` windows that cover ``(N, C, D, H, W)``; see :func:`adaptive_max_pool1d`."""

    _axes = 3
