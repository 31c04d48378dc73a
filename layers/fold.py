"""Unfold and Fold: an image as the columns under a kernel, and columns added up to an image."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..autograd.tape import require_arrays
from ..backend import Array
from ..kernels.windows import per_axis
from .module import Module


@op
def _unfold(x: Array, kernel: tuple[int, ...], options: dict[str, Any]) -> Any:
    image = x.shape[2:]
    return kernels.im2col(x, kernel, **options), lambda dy: (kernels.col2im(dy, image, kernel, **options),)


@op
def _fold(x: Array, image: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any]) -> Any:
    return kernels.col2im(x, image, kernel, **options), lambda dy: (kernels.im2col(dy, kernel, **options),)


def unfold(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """The values under a kernel at each of its places, as columns.

    Args:
        x: images, shape ``(N, C, H, W)`` or ``(C, H, W)``.
        kernel_size, dilation, padding, stride: an integer, or a pair, as in :func:`conv2d`.
    Returns:
        shape ``(N, C * K * K', places)``: channel first, then position in the kernel; places row by row.
    Raises:
        ValueError: a shape or number does not fit.
    """
    require_arrays("unfold", x=x)
    if x.ndim not in (3, 4):
        raise ValueError(f"unfold: x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
    options = _options("unfold", dilation, padding, stride)
    y: Tensor = _unfold(x[None] if x.ndim == 3 else x, per_axis("unfold", "kernel_size", kernel_size, 2, 1), options)
    return y[0] if x.ndim == 3 else y


def fold(x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """Adds columns up to an image: the adjoint of :func:`unfold`, not its inverse where kernels overlap.

    Args:
        x: columns, shape ``(N, C * K * K', places)`` or ``(C * K * K', places)``.
        output_size: height and width of the image.
        kernel_size, dilation, padding, stride: an integer, or a pair, as in :func:`unfold`.
    Returns:
        shape ``(N, C, H, W)``.
    Raises:
        ValueError: a shape or number does not fit.
    """
    require_arrays("fold", x=x)
    if x.ndim not in (2, 3):
        raise ValueError(f"fold: x must have shape (N, C * K * K', places) or without N, got {tuple(x.shape)}")
    options = _options("fold", dilation, padding, stride)
    image = per_axis("fold", "output_size", output_size, 2, 1)
    kernel = per_axis("fold", "kernel_size", kernel_size, 2, 1)
    y: Tensor = _fold(x[None] if x.ndim == 2 else x, image, kernel, options)
    return y[0] if x.ndim == 2 else y


def _options(name: str, dilation: Any, padding: Any, stride: Any) -> dict[str, Any]:
    return {
        "dilation": per_axis(name, "dilation", dilation, 2, 1),
        "padding": per_axis(name, "padding", padding, 2),
        "stride": per_axis(name, "stride", stride, 2, 1),
    }


class Unfold(Module):
    """Turns images into the columns under a kernel; see :func:`unfold`.

    Args:
        kernel_size, dilation, padding, stride: an integer, or a pair.
    """

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> None:
        self.kernel_size = per_axis("Unfold", "kernel_size", kernel_size, 2, 1)
        self.dilation, self.padding, self.stride = _options("Unfold", dilation, padding, stride).values()

    def forward(self, x: Any) -> Tensor:
        return unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """Adds columns up to an image; see :func:`fold`.

    Args:
        output_size: height and width of the image.
        kernel_size, dilation, padding, stride: an integer, or a pair.
    """

    def __init__(
        self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        self.output_size = per_axis("Fold", "output_size", output_size, 2, 1)
        self.kernel_size = per_axis("Fold", "kernel_size", kernel_size, 2, 1)
        self.dilation, self.padding, self.stride = _options("Fold", dilation, padding, stride).values()

    def forward(self, x: Any) -> Tensor:
        return fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )
