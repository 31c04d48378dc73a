"""Average pooling in one, two and three dimensions: the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.image_axes import Axis, averaged, divided
from .pooling import Pooling, adaptive_axes, batched, pooling_axes
from .real import real


@op
def resampled(x: Array, axes: Sequence[Axis]) -> Any:
    """:func:`kernels.resample` and its gradient."""
    shape = x.shape
    return kernels.resample(x, axes), lambda dy: (kernels.resample_backward(dy, shape, axes),)


def _average(
    function: str,
    count: int,
    x: Any,
    size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: Any = None,
) -> Tensor:
    axes = pooling_axes(function, x, count, size, stride, padding, 1, ceil_mode)
    if divisor_override is None:
        axes = tuple(averaged(axis, count_include_pad) for axis in axes)
    else:
        divisor = real(function, "divisor_override", divisor_override)
        if divisor == 0:
            raise ValueError(f"{function}: divisor_override must not be 0")
        axes = (*axes[:-1], divided(axes[-1], divisor))
    y: Tensor = batched(x, count, lambda images: resampled(images, axes))
    return y


def avg_pool1d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """``y[n, c, i] = mean over k of x[n, c, stride i + k - padding]``.

    Args:
        x: shape ``(N, C, T)`` or ``(C, T)``, floating.
        kernel_size: values in a window.
        stride: from one window to the next; ``kernel_size`` by default.
        padding: zeros added at both ends, at most half of a window.
        ceil_mode: whether a last window may reach beyond the end; it has to begin before it, and what lies beyond the
            padding is not counted.
        count_include_pad: whether the zeros of the padding are counted.
    Returns:
        shape ``(N, C, T')`` with ``T' = (T + 2 padding - kernel_size) / stride + 1``, rounded down, or up.
    """
    return _average("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: float | None = None,
) -> Tensor:
    """The mean of each window of images ``(N, C, H, W)`` or ``(C, H, W)``; otherwise as :func:`avg_pool1d`.

    Args:
        divisor_override: what the sum of a window is divided by, whatever it counts.
    """
    options = (padding, ceil_mode, count_include_pad, divisor_override)
    return _average("avg_pool2d", 2, x, kernel_size, stride, *options)


def avg_pool3d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: float | None = None,
) -> Tensor:
    """The mean of each window of volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)``; otherwise as :func:`avg_pool2d`."""
    options = (padding, ceil_mode, count_include_pad, divisor_override)
    return _average("avg_pool3d", 3, x, kernel_size, stride, *options)


def adaptive_average(function: str, count: int, x: Any, output_size: Any) -> Tensor:
    """Adaptive average pooling over ``count`` axes."""
    axes = adaptive_axes(function, x, count, output_size)
    axes = tuple(axis if axis.is_identity else averaged(axis, False) for axis in axes)
    y: Tensor = batched(x, count, lambda images: resampled(images, axes))
    return y


def adaptive_avg_pool1d(x: Any, output_size: Any) -> Tensor:
    """The mean of each of ``output_size`` windows that cover ``(N, C, T)`` or ``(C, T)``.

    Window i goes from ``floor(i T / output_size)`` to before ``ceil((i + 1) T / output_size)``; size 1 is the mean of
    everything.

    Args:
        x: floating.
        output_size: how many windows; None for one for each value.
    """
    return adaptive_average("adaptive_avg_pool1d", 1, x, output_size)


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Tensor:
    """:func:`adaptive_avg_pool1d` of images ``(N, C, H, W)`` or ``(C, H, W)``; one size for both axes, or two."""
    return adaptive_average("adaptive_avg_pool2d", 2, x, output_size)


def adaptive_avg_pool3d(x: Any, output_size: Any) -> Tensor:
    """:func:`adaptive_avg_pool1d` of volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""
    return adaptive_average("adaptive_avg_pool3d", 3, x, output_size)


class AvgPool1d(Pooling):
    """The mean of each window of ``(N, C, T)``.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: as in :func:`avg_pool1d`.
    """

    _shown: tuple[str, ...] = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Any) -> Tensor:
        options = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return _average("AvgPool1d", 1, x, *options)


class _AvgPool(AvgPool1d):
    _axes = 0
    _shown = (*AvgPool1d._shown, "divisor_override")

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: float | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def forward(self, x: Any) -> Tensor:
        options = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return _average(type(self).__name__, self._axes, x, *options, self.divisor_override)


class AvgPool2d(_AvgPool):
    """The mean of each window of ``(N, C, H, W)``; arguments as in :func:`avg_pool2d`."""

    _axes = 2


class AvgPool3d(_AvgPool):
    """The mean of each window of ``(N, C, D, H, W)``; arguments as in :func:`avg_pool3d`."""

    _axes = 3


class _AdaptiveAvgPool(Pooling):
    _axes = 0
    _shown = ("output_size",)

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return adaptive_average(type(self).__name__, self._axes, x, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of ``output_size`` windows that cover ``(N, C, T)``; see :func:`adaptive_avg_pool1d`."""

    _axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The means of ``output_size`` windows that cover ``(N, C, H, W)``; see :func:`adaptive_avg_pool1d`."""

    _axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The means of ``output_size`` windows that cover ``(N, C, D, H, W)``; see :func:`adaptive_avg_pool1d`."""

    _axes = 3
