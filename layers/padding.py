"""Padding: more values around an array, of one value, mirrored, repeated, or from the other end."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..autograd.tape import require_arrays
from ..backend import Array, backend_of, empty_images, is_channels_last
from ..kernels.image_axes import extended, unchanged
from ..kernels.windows import per_axis
from .avg_pool import resampled
from .module import Module
from .pooling import batched
from .real import real

_MODES = ("constant", "reflect", "replicate", "circular")


@op
def _constant_pad(x: Array, pairs: tuple[tuple[int, int], ...], value: float) -> Any:
    """``pairs``: what is added before and after each axis."""
    backend = backend_of(x)
    last = is_channels_last(x)
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True))
    inside = tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(shape, pairs, strict=True))
    kept = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs, strict=True))
    y = empty_images(backend, shape, x.dtype, backend.device_of(x), last)
    y[...] = value
    y[inside] = x[kept]
    before = x.shape

    def backward(dy: Array) -> Any:
        dx = empty_images(backend, before, dy.dtype, backend.device_of(dy), last)
        if any(a < 0 or b < 0 for a, b in pairs):
            dx[...] = 0
        dx[kept] = dy[inside]
        return (dx,)

    return y, backward


def pad(x: Any, padding: Any, mode: str = "constant", value: float = 0.0) -> Tensor:
    """``x`` with values added around it.

    Args:
        x: floating; shape ``(N, C, ...)`` or ``(C, ...)`` unless ``mode`` is ``"constant"``, which takes any shape.
        padding: ``(before, after)`` of the last axis, then of the one before it, and so on: ``(left, right, top,
            bottom)``. Negative numbers take values away.
        mode: ``"constant"``: ``value``; ``"reflect"``: mirrored at the edge, which is not repeated; ``"replicate"``:
            the value at the edge; ``"circular"``: from the other end. All but the first want a pair for each spatial
            axis.
        value: what is added where ``mode`` is ``"constant"``.
    Raises:
        ValueError: the padding does not fit: no more than ``n - 1`` values can be mirrored, ``n`` be taken from the
            other end, and an axis cannot lose more values than it has.
    """
    return _padded("pad", x, padding, mode, value)


def _padded(function: str, x: Any, padding: Any, mode: str, value: Any = 0.0) -> Tensor:
    require_arrays(function, x=x)
    if mode not in _MODES:
        raise ValueError(f"{function}: mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}")
    if not isinstance(padding, (tuple, list)) or len(padding) % 2 or not 2 <= len(padding) <= 2 * x.ndim:
        raise ValueError(f"{function}: padding must be 2 to {2 * x.ndim} integers, two for each axis, got {padding!r}")
    numbers = per_axis(function, "padding", tuple(padding), len(padding), None)
    pairs = tuple((numbers[i], numbers[i + 1]) for i in range(len(numbers) - 2, -1, -2))
    lengths = tuple(x.shape[x.ndim - len(pairs) :])
    for n, (a, b) in zip(lengths, pairs, strict=True):
        most = {"reflect": n - 1, "circular": n, "replicate": max(a, b) if n else 0}.get(mode, max(a, b))
        if max(a, b) > most or n + a + b < 0 or min(a, b) < -n:
            raise ValueError(
                f"{function}: padding {(a, b)} does not fit an axis of length {n} in mode {mode!r}, "
                f"got padding={tuple(padding)} for shape {tuple(x.shape)}"
            )
    if mode == "constant":
        whole = (*((0, 0),) * (x.ndim - len(pairs)), *pairs)
        number = real(function, "value", value)
        if not _holds(x.dtype, number):
            raise ValueError(f"{function}: value must be one that {x.dtype} holds, got {value!r}")
        y: Tensor = _constant_pad(x, whole, number)
        return y
    if x.ndim - len(pairs) not in (1, 2) or len(pairs) > 3:
        raise ValueError(
            f"{function}: mode {mode!r} wants a pair for each spatial axis of (N, C, ...) or (C, ...), "
            f"got {len(pairs)} for shape {tuple(x.shape)}"
        )
    axes = tuple(
        extended(n, a, b, mode) if a or b else unchanged(n) for n, (a, b) in zip(lengths, pairs, strict=True)
    )
    result: Tensor = batched(x, len(pairs), lambda images: resampled(images, axes))
    return result


def _holds(dtype: Any, number: float) -> bool:
    """Whether an array of this dtype can have the number among its values, but for rounding."""
    if dtype.kind == "b":
        return number in (0, 1)
    if dtype.kind not in "iu":
        return True
    low, high = -(2 ** (8 * dtype.itemsize - 1)), 2 ** (8 * dtype.itemsize - 1)
    if dtype.kind == "u":
        low, high = 0, high - low
    return low <= number < high and number.is_integer()


class _Padding(Module):
    """What the padding layers share."""

    _axes = 0
    _mode = "constant"
    value: float = 0.0

    def __init__(self, padding: Any) -> None:
        name = type(self).__name__
        given = padding if isinstance(padding, (tuple, list)) else (padding,) * (2 * self._axes)
        self.padding = per_axis(name, "padding", tuple(given), 2 * self._axes, None)

    def forward(self, x: Any) -> Tensor:
        name = type(self).__name__
        require_arrays(name, x=x)
        if x.ndim not in (self._axes + 1, self._axes + 2):
            letters = ", ".join("DHW"[3 - self._axes :]) if self._axes > 1 else "T"
            raise ValueError(f"{name}: x must have shape (N, C, {letters}) or (C, {letters}), got {tuple(x.shape)}")
        return _padded(name, x, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return repr(self.padding)


class ConstantPad1d(_Padding):
    """``value`` added at both ends of ``(N, C, T)``.

    Args:
        padding: one number for both ends, or ``(left, right)``; negative ones take values away.
        value: what is added.
    """

    _axes = 1

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = real(type(self).__name__, "value", value)

    def extra_repr(self) -> str:
        return f"{self.padding}, value={self.value}"


class ConstantPad2d(ConstantPad1d):
    """``value`` added around ``(N, C, H, W)``; padding is one number or ``(left, right, top, bottom)``."""

    _axes = 2


class ConstantPad3d(ConstantPad1d):
    """``value`` added around ``(N, C, D, H, W)``; padding is one number or six, those of the last axis first."""

    _axes = 3


class ZeroPad1d(_Padding):
    """Zeros added at both ends of ``(N, C, T)``; padding is one number or ``(left, right)``."""

    _axes = 1


class ZeroPad2d(_Padding):
    """Zeros added around ``(N, C, H, W)``; padding is one number or ``(left, right, top, bottom)``."""

    _axes = 2


class ZeroPad3d(_Padding):
    """Zeros added around ``(N, C, D, H, W)``; padding is one number or six, those of the last axis first."""

    _axes = 3


class ReflectionPad1d(_Padding):
    """``(N, C, T)`` mirrored at both ends, which are not repeated; padding as in :class:`ZeroPad1d`."""

    _axes, _mode = 1, "reflect"


class ReflectionPad2d(_Padding):
    """``(N, C, H, W)`` mirrored at its edges, which are not repeated; padding as in :class:`ZeroPad2d`."""

    _axes, _mode = 2, "reflect"


class ReflectionPad3d(_Padding):
    """``(N, C, D, H, W)`` mirrored at its edges, which are not repeated; padding as in :class:`ZeroPad3d`."""

    _axes, _mode = 3, "reflect"


class ReplicationPad1d(_Padding):
    """``(N, C, T)`` continued by the values at its ends; padding as in :class:`ZeroPad1d`."""

    _axes, _mode = 1, "replicate"


class ReplicationPad2d(_Padding):
    """``(N, C, H, W)`` continued by the values at its edges; padding as in :class:`ZeroPad2d`."""

    _axes, _mode = 2, "replicate"


class ReplicationPad3d(_Padding):
    """``(N, C, D, H, W)`` continued by the values at its edges; padding as in :class:`ZeroPad3d`."""

    _axes, _mode = 3, "replicate"


class CircularPad1d(_Padding):
    """``(N, C, T)`` continued from its other end; padding as in :class:`ZeroPad1d`."""

    _axes, _mode = 1, "circular"


class CircularPad2d(_Padding):
    """``(N, C, H, W)`` continued from its other edges; padding as in :class:`ZeroPad2d`."""

    _axes, _mode = 2, "circular"


class CircularPad3d(_Padding):
    """``(N, C, D, H, W)`` continued from its other edges; padding as in :class:`ZeroPad3d`."""

    _axes, _mode = 3, "circular"
