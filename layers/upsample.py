"""Resizing images: the nearest value, linear in one, two or three axes, bicubic, or the mean of an area."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor
from ..autograd.tape import require_arrays
from ..kernels.image_axes import resized, unchanged
from ..kernels.windows import per_axis
from .avg_pool import adaptive_average, resampled
from .module import Module
from .real import real

_MODES = {  # mode -> name along an axis, and the number of spatial axes it is for
    "nearest": ("nearest", (1, 2, 3)),
    "nearest-exact": ("nearest-exact", (1, 2, 3)),
    "linear": ("linear", (1,)),
    "bilinear": ("linear", (2,)),
    "trilinear": ("linear", (3,)),
    "bicubic": ("cubic", (2,)),
    "area": ("area", (1, 2, 3)),
}


def interpolate(
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """Images resized to ``size``, or by ``scale_factor``.

    Args:
        x: shape ``(N, C, T)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``, floating.
        size: lengths of the spatial axes of the result, or one for all.
        scale_factor: what the lengths are multiplied by (and rounded down), or one for all; instead of ``size``.
        mode: ``"nearest"``: the value at ``floor(o s)`` for output o, with ``s`` input values to an output value;
            ``"nearest-exact"``: at ``floor((o + 1/2) s)``; ``"linear"``, ``"bilinear"``, ``"trilinear"``: a mean of the
            two values beside the place ``(o + 1/2) s - 1/2`` along each of 1, 2, 3 axes; ``"bicubic"``: of four;
            ``"area"``: of the window that :func:`adaptive_avg_pool2d` takes.
        align_corners: for the linear modes and bicubic: the first and last values keep their places, ``o (n - 1) /
            (out - 1)``.
        recompute_scale_factor: whether ``s`` follows from the rounded lengths and not from ``scale_factor``.
    Raises:
        ValueError: not exactly one of ``size`` and ``scale_factor`` is given, a length is not positive, or the mode
            does not fit.
    """
    require_arrays("interpolate", x=x)
    axes = x.ndim - 2
    if not 1 <= axes <= 3:
        raise ValueError(f"interpolate: x must have shape (N, C, ...) with 1 to 3 spatial axes, got {tuple(x.shape)}")
    if not isinstance(mode, str) or mode not in _MODES or axes not in _MODES[mode][1]:
        fitting = ", ".join(repr(name) for name, (_, counts) in _MODES.items() if axes in counts)
        raise ValueError(f"interpolate: mode must be one of {fitting} for {axes} spatial axes, got {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"interpolate: give exactly one of size and scale_factor, got size={size}, scale_factor={scale_factor}"
        )
    name = _MODES[mode][0]
    if align_corners is not None and name not in ("linear", "cubic"):
        raise ValueError(f"interpolate: align_corners is for the linear modes and bicubic, not for mode {mode!r}")
    lengths = tuple(x.shape[2:])
    scales: tuple[float | None, ...] = (None,) * axes
    if scale_factor is None:
        if recompute_scale_factor:
            raise ValueError("interpolate: recompute_scale_factor needs scale_factor, got size")
        outs = per_axis("interpolate", "size", size, axes, 1)
    else:
        given = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * axes
        if len(given) != axes:
            raise ValueError(f"interpolate: scale_factor must be a number or {axes} of them, got {scale_factor!r}")
        factors = tuple(real("interpolate", "scale_factor", factor) for factor in given)
        if math.inf in factors:
            raise ValueError(f"interpolate: scale_factor must be finite, got {scale_factor!r}")
        outs = tuple(math.floor(n * factor) for n, factor in zip(lengths, factors, strict=True))
        if min(outs) < 1 or min(factors) <= 0:
            raise ValueError(f"interpolate: scale_factor must leave a value, got {scale_factor!r} for {tuple(x.shape)}")
        if not recompute_scale_factor:
            scales = factors
    if min(lengths) < 1:
        raise ValueError(f"interpolate: x must have values along its spatial axes, got shape {tuple(x.shape)}")
    if name == "area":
        return adaptive_average("interpolate", axes, x, outs)
    rules = zip(lengths, outs, scales, strict=True)
    found = [_axis(n, out, name, bool(align_corners), scale) for n, out, scale in rules]
    y: Tensor = resampled(x, tuple(found))
    return y


def _axis(length: int, out: int, name: str, align_corners: bool, scale: float | None) -> Any:
    if length == out and (scale is None or scale == 1.0):
        return unchanged(length)  # every place is that of a value
    return resized(length, out, name, align_corners, scale)


class Upsample(Module):
    """Images resized to ``size``, or by ``scale_factor``; arguments as in :func:`interpolate`."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, x: Any) -> Tensor:
        options = (self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)
        return interpolate(x, *options)

    def extra_repr(self) -> str:
        given = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{given}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Images ``(N, C, H, W)`` resized by taking the nearest value."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Images ``(N, C, H, W)`` resized linearly along both axes, the corners kept in place."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)
