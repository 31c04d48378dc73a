"""Max unpooling: values go back to where a max pooling took them from, everything else is 0."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..autograd.tape import require_arrays
from ..backend import Array, backend_of
from ..kernels.windows import per_axis
from .pooling import Pooling, batched, spatial


@op
def _max_unpool(x: Array, indices: Array, lengths: tuple[int, ...]) -> Any:
    """``y[n, c, indices[n, c, i]] = x[n, c, i]``."""
    xp = backend_of(x).xp
    planes, before = math.prod(x.shape[:2]), x.shape
    flat = indices.reshape(planes, math.prod(x.shape[2:]))
    y = xp.zeros((planes, math.prod(lengths)), x.dtype)
    y[xp.arange(planes)[:, None], flat] = x.reshape(flat.shape)

    def backward(dy: Array) -> Any:
        return (xp.take_along_axis(dy.reshape(y.shape), flat, axis=1).reshape(before),)

    return y.reshape(*before[:2], *lengths), backward


def _unpooled(
    function: str, count: int, x: Any, indices: Any, size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    lengths = spatial(function, x, count)
    require_arrays(function, indices=indices)
    if tuple(indices.shape) != tuple(x.shape) or indices.dtype.kind not in "iu":
        raise ValueError(
            f"{function}: indices must be integers of the shape of x, {tuple(x.shape)}, "
            f"got {indices.dtype} of {tuple(indices.shape)}"
        )
    kernel = per_axis(function, "kernel_size", size, count, 1)
    steps = kernel if stride is None else per_axis(function, "stride", stride, count, 1)
    pads = per_axis(function, "padding", padding, count)
    usual = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(lengths, steps, pads, kernel, strict=True))
    wanted = usual
    if output_size is not None:
        wanted = tuple(output_size)[-count:] if isinstance(output_size, (tuple, list)) else (output_size,) * count
        wanted = per_axis(function, "output_size", wanted, count, 1)
        if any(not u - s < w < u + s for u, w, s in zip(usual, wanted, steps, strict=True)):
            raise ValueError(f"{function}: output_size must be less than a stride from {usual}, got {output_size}")
    plain = indices.data if isinstance(indices, Tensor) else indices
    if plain.size and not 0 <= int(plain.min()) <= int(plain.max()) < math.prod(wanted):
        raise ValueError(
            f"{function}: indices must be in 0 … {math.prod(wanted) - 1} for an output of {wanted}, "
            f"got {int(plain.min())} … {int(plain.max())}"
        )
    if x.ndim == count + 1:
        plain = plain[None]
    y: Tensor = batched(x, count, lambda images: _max_unpool(images, plain, wanted))
    return y


def max_unpool1d(
    x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """The values of ``x`` at ``indices``, 0 elsewhere: a partial inverse of :func:`max_pool1d`.

    Where two windows had one maximum the value of the later one stands, on a CUDA device of either.

    Args:
        x: shape ``(N, C, T)`` or ``(C, T)``, floating.
        indices: int64 of the same shape: what the pooling gave with ``return_indices=True``.
        kernel_size, stride, padding: those of the pooling.
        output_size: the length of the result, or a whole shape; else ``(T - 1) stride - 2 padding + kernel_size``.
    Raises:
        ValueError: indices or ``output_size`` are out of range; on a CUDA device this waits for the indices.
    """
    return _unpooled("max_unpool1d", 1, x, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """:func:`max_unpool1d` of images ``(N, C, H, W)`` or ``(C, H, W)``."""
    return _unpooled("max_unpool2d", 2, x, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    x: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """:func:`max_unpool1d` of volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""
    return _unpooled("max_unpool3d", 3, x, indices, kernel_size, stride, padding, output_size)


class _MaxUnpool(Pooling):
    _axes = 0
    _shown = ("kernel_size", "stride", "padding")

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Any, indices: Any, output_size: Any = None) -> Tensor:
        options = (self.kernel_size, self.stride, self.padding, output_size)
        return _unpooled(type(self).__name__, self._axes, x, indices, *options)


class MaxUnpool1d(_MaxUnpool):
    """A partial inverse of :class:`MaxPool1d`, called with its result and indices; see :func:`max_unpool1d`."""

    _axes = 1


class MaxUnpool2d(_MaxUnpool):
    """A partial inverse of :class:`MaxPool2d`, called with its result and indices; see :func:`max_unpool1d`."""

    _axes = 2


class MaxUnpool3d(_MaxUnpool):
    """A partial inverse of :class:`MaxPool3d`, called with its result and indices; see :func:`max_unpool1d`."""

    _axes = 3
