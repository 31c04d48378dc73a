"""LP pooling: the p-norm of each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..backend import Array, backend_of
from ..kernels.image_axes import Axis, averaged, window_size
from .pooling import Pooling, batched, pooling_axes
from .real import real
from .reduction import narrowed, quiet, widened


@op
def _lp_pool(x: Array, p: float, axes: Sequence[Axis]) -> Any:
    """``y = (size * mean(x^p))^(1/p)`` of each window, ``size`` its full one."""
    backend, size = backend_of(x), window_size(axes)
    xp, wide, dtype = backend.xp, widened(x), x.dtype
    with quiet(backend):
        total = kernels.resample(wide**p, axes) * size
        y = total ** (1.0 / p)

    def backward(dy: Array) -> Any:
        with quiet(backend):
            slope = xp.where(total == 0.0, 0.0, total ** (1.0 / p - 1.0)) * widened(dy)
            spread = kernels.resample_backward(slope.astype(wide.dtype, copy=False), x.shape, axes)
            dx = spread * (size * wide ** (p - 1.0))
        return (narrowed(backend, dx, dtype),)

    return narrowed(backend, y, dtype), backward


def _pooled(function: str, count: int, x: Any, norm_type: Any, size: Any, stride: Any, ceil_mode: bool) -> Tensor:
    p = real(function, "norm_type", norm_type)
    if not 0 < p < float("inf"):
        raise ValueError(f"{function}: norm_type must be positive and finite, got {norm_type}")
    axes = pooling_axes(function, x, count, size, stride, 0, 1, ceil_mode)
    axes = tuple(averaged(axis, True) for axis in axes)
    y: Tensor = batched(x, count, lambda images: _lp_pool(images, p, axes))
    return y


def lp_pool1d(x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """``y = (sum over a window of x^p)^(1/p)`` with ``p = norm_type``: p = 1 is a sum, large p nearly the maximum.

    Where the sum is 0 the gradient is 0. A sum below 0 (p odd) has no root: NaN.

    Args:
        x: shape ``(N, C, T)`` or ``(C, T)``, floating.
        norm_type: p, above 0.
        kernel_size: values in a window.
        stride: from one window to the next; ``kernel_size`` by default.
        ceil_mode: whether a last window may reach beyond the end; its sum is then scaled to a full window.
    """
    return _pooled("lp_pool1d", 1, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """:func:`lp_pool1d` of images ``(N, C, H, W)`` or ``(C, H, W)``."""
    return _pooled("lp_pool2d", 2, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """:func:`lp_pool1d` of volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""
    return _pooled("lp_pool3d", 3, x, norm_type, kernel_size, stride, ceil_mode)


class _LPPool(Pooling):
    _axes = 0
    _shown = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, x: Any) -> Tensor:
        options = (self.norm_type, self.kernel_size, self.stride, self.ceil_mode)
        return _pooled(type(self).__name__, self._axes, x, *options)


class LPPool1d(_LPPool):
    """The p-norm of each window of ``(N, C, T)``; arguments as in :func:`lp_pool1d`."""

    _axes = 1


class LPPool2d(_LPPool):
    """The p-norm of each window of ``(N, C, H, W)``; arguments as in :func:`lp_pool1d`."""

    _axes = 2


class LPPool3d(_LPPool):
    """The p-norm of each window of ``(N, C, D, H, W)``; arguments as in :func:`lp_pool1d`."""

    _axes = 3
