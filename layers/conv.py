"""Convolution in one, two and three dimensions."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, op
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator
from ..kernels.windows import per_axis, windows
from . import init
from .lengths import length
from .module import Module
from .padding import pad


@op
def _conv(x: Array, weight: Array, bias: Array | None, options: dict[str, Any]) -> Any:
    y = kernels.conv(x, weight, bias, **options)
    image, kernel = x.shape[2:], weight.shape[2:]
    return y, (
        lambda dy, out: kernels.conv_backward_data(dy, weight, image, **options),
        lambda dy, out: kernels.conv_backward_weight(dy, x, kernel, out=out, **options),
        lambda dy, out: kernels.conv_backward_bias(dy, out),
    )


def _conv_axes(
    name: str, axes: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    x, alone = batch_of(name, axes, x, weight)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    y: Tensor = _conv(x, weight, bias, options)
    return y[0] if alone else y


def batch_of(name: str, axes: int, x: Any, weight: Any) -> tuple[Any, bool]:
    """``x`` with a batch axis, and whether it had none; raises where the axes do not fit."""
    require_arrays(name, x=x, weight=weight)
    if weight.ndim != axes + 2:
        raise ValueError(f"{name}: weight must have {axes + 2} axes, got shape {tuple(weight.shape)}")
    if x.ndim not in (axes + 1, axes + 2):
        letters = ", ".join("DHW"[3 - axes :]) if axes > 1 else "L"
        raise ValueError(f"{name}: x must have shape (N, C, {letters}) or (C, {letters}), got {tuple(x.shape)}")
    alone = x.ndim == axes + 1
    return (x[None] if alone else x), alone


def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``y[n, f, i] = bias[f] + sum over c, k of weight[f, c, k] * x[n, c, stride i + dilation k - padding]``.

    A correlation, as everywhere in this field: the convolution of mathematics and of signal processing turns the
    kernel round, ``weight[..., ::-1]``.

    Args:
        x: shape ``(N, C, L)`` or ``(C, L)``; outside of it lie zeros.
        weight: shape ``(F, C / groups, K)``.
        bias: shape ``(F,)``, or None.
        stride: from one place of the kernel to the next.
        padding: zeros at both ends; ``"valid"`` is none, ``"same"`` keeps the length at stride 1, where an odd zero
            comes last.
        dilation: from one value under the kernel to the next.
        groups: the channels form so many groups, each seen by its own filters.
    Returns:
        shape ``(N, F, L')`` with ``L' = floor((L + 2 padding - dilation (K - 1) - 1) / stride) + 1``.
    Raises:
        TypeError: a dtype does not fit. ValueError: a shape or number does not fit; says which.
    """
    return _conv_axes("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The correlation of images ``(N, C, H, W)`` or ``(C, H, W)`` with ``weight`` ``(F, C / groups, K, K')``.

    Numbers for both axes alike, or a pair; otherwise as :func:`conv1d`. The result keeps the memory format of ``x``
    (channels first or last). On the CPU kernels of 3 and 5 values at stride 1 take Winograd's algorithm where it pays:
    its error is at most 2e-5 of the largest value, its result is channels-last; inside ``lamella.precision("strict")``
    it is not used.
    """
    return _conv_axes("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The correlation of volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)`` with ``weight`` ``(F, C / groups, *kernel)``.

    Numbers for all axes alike, or three; otherwise as :func:`conv1d`.
    """
    return _conv_axes("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class ConvBase(Module):
    """What the convolution layers share: the parameters and what is printed."""

    weight: Parameter
    bias: Parameter | None
    axes = 0
    transposed = False

    def _set_up(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        rng: Generator | None,
    ) -> None:
        name = type(self).__name__
        self.in_channels = length(name, "in_channels", in_channels, 1)
        self.out_channels = length(name, "out_channels", out_channels, 1)
        self.groups = length(name, "groups", groups, 1)
        for what, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{name}: {what} must be divisible by groups, got {what}={channels}, groups={groups}")
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.axes, 1)
        self.stride = per_axis(name, "stride", stride, self.axes, 1)
        self.dilation = per_axis(name, "dilation", dilation, self.axes, 1)
        self.padding_mode = padding_mode
        rng = as_generator(name, rng)
        first, second = self.in_channels, self.out_channels
        if not self.transposed:
            first, second = second, first
        shape = (first, second // self.groups, *self.kernel_size)
        fan_in = math.prod(shape[1:])
        self.weight = Parameter(init.fan_in_uniform(shape, fan_in, rng=rng))
        self.bias = Parameter(init.fan_in_uniform((self.out_channels,), fan_in, rng=rng)) if bias else None

    def _check(self, x: Any) -> None:
        axes = self.axes
        require_arrays(type(self).__name__, x=x)
        if x.ndim not in (axes + 1, axes + 2) or x.shape[-axes - 1] != self.in_channels:
            letters = ", ".join("DHW"[3 - axes :]) if axes > 1 else "L"
            raise ValueError(
                f"{type(self).__name__}: x must have shape (N, {self.in_channels}, {letters}) or "
                f"({self.in_channels}, {letters}), got {tuple(x.shape)}"
            )

    def _repr(self, padding: Any) -> list[str]:
        given = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if padding not in ((0,) * self.axes, "valid"):
            given.append(f"padding={padding!r}")
        if self.dilation != (1,) * self.axes:
            given.append(f"dilation={self.dilation}")
        if self.groups != 1:
            given.append(f"groups={self.groups}")
        if self.bias is None:
            given.append("bias=False")
        if self.padding_mode != "zeros":
            given.append(f"padding_mode={self.padding_mode!r}")
        return given


class _Conv(ConvBase):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        rng: Generator | None = None,
    ) -> None:
        name = type(self).__name__
        if padding_mode not in PADDING_MODES:
            modes = ", ".join(map(repr, PADDING_MODES))
            raise ValueError(f"{name}: padding_mode must be one of {modes}, got {padding_mode!r}")
        self._set_up(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, padding_mode, rng)
        self.padding: Any = padding if isinstance(padding, str) else per_axis(name, "padding", padding, self.axes)
        self._windows = windows(name, self.kernel_size, self.stride, self.padding, self.dilation)

    def forward(self, x: Any) -> Tensor:
        self._check(x)
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            pairs = zip(reversed(self._windows.before), reversed(self._windows.after), strict=True)
            x, padding = pad(x, [n for pair in pairs for n in pair], self.padding_mode), 0
        name, axes = f"conv{self.axes}d", self.axes
        return _conv_axes(name, axes, x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return ", ".join(self._repr(self.padding))


class Conv1d(_Conv):
    """Slides learned kernels over sequences ``(N, C, L)``; see :func:`conv1d`.

    Args:
        in_channels: C of the input. out_channels: how many kernels.
        kernel_size, stride, dilation: an integer, or one for each axis.
        padding: the same, or ``"valid"``, or ``"same"``.
        groups: divides both numbers of channels; ``groups=in_channels`` filters each channel by itself (depthwise).
        bias: whether a learned constant is added to each output channel.
        padding_mode: what lies outside: ``"zeros"``, ``"reflect"`` (mirrored without the edge), ``"replicate"`` (the
            edge again) or ``"circular"`` (the other end).
        rng: draws the initial values, U(±1/sqrt(in_channels / groups * kernel)) as in PyTorch; a fresh one by default.

    Attributes:
        weight: shape ``(out_channels, in_channels / groups, *kernel_size)``.
        bias: shape ``(out_channels,)``, or None.
    """

    axes = 1


class Conv2d(_Conv):
    """Slides learned kernels over images ``(N, C, H, W)``; see :func:`conv2d`, and :class:`Conv1d`."""

    axes = 2


class Conv3d(_Conv):
    """Slides learned kernels over volumes ``(N, C, D, H, W)``; see :func:`conv3d`, and :class:`Conv1d`."""

    axes = 3
