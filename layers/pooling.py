"""What the pooling layers share: arguments for each axis, and images without a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.tape import require_arrays
from ..kernels.image_axes import Axis, adaptive, unchanged, windows
from ..kernels.windows import per_axis
from .module import Module


def spatial(function: str, x: Any, axes: int) -> tuple[int, ...]:
    """The lengths of the spatial axes of images ``(N, C, ...)`` or ``(C, ...)``."""
    require_arrays(function, x=x)
    if x.ndim not in (axes + 1, axes + 2):
        letters = ", ".join("DHW"[3 - axes :]) if axes > 1 else "T"
        raise ValueError(f"{function}: x must have shape (N, C, {letters}) or (C, {letters}), got {tuple(x.shape)}")
    return tuple(x.shape[x.ndim - axes :])


def batched(x: Any, axes: int, function: Callable[[Any], Any]) -> Any:
    """``function`` of images with a batch axis, which is put before ``x`` and taken away where it has none."""
    if x.ndim == axes + 2:
        return function(x)
    result = function(x[None])
    return tuple(part[0] for part in result) if isinstance(result, tuple) else result[0]


def pooling_axes(
    function: str, x: Any, axes: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Axis, ...]:
    """The windows of a pooling; the stride is the kernel's size where it is None."""
    lengths = spatial(function, x, axes)
    kernel = per_axis(function, "kernel_size", kernel_size, axes, 1)
    steps = kernel if stride is None else per_axis(function, "stride", stride, axes, 1)
    pads, gaps = per_axis(function, "padding", padding, axes), per_axis(function, "dilation", dilation, axes, 1)
    return windows(function, lengths, kernel, steps, pads, gaps, bool(ceil_mode))


def adaptive_axes(function: str, x: Any, axes: int, output_size: Any) -> tuple[Axis, ...]:
    """The windows of an adaptive pooling; None keeps an axis as it is."""
    lengths = spatial(function, x, axes)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * axes
    if len(given) != axes:
        raise ValueError(f"{function}: output_size must be an integer or {axes} of them, got {output_size!r}")
    sizes = (n if o is None else o for n, o in zip(lengths, given, strict=True))
    numbers = per_axis(function, "output_size", tuple(sizes), axes)
    if 0 in lengths:
        raise ValueError(f"{function}: x must have values along its spatial axes, got shape {tuple(x.shape)}")
    found = adaptive(lengths, numbers)
    return tuple(unchanged(axis.length) if axis.length == axis.out else axis for axis in found)


class Pooling(Module):
    """A pooling layer: its options are attributes under their names, and stand in ``repr``."""

    _shown: tuple[str, ...] = ()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
